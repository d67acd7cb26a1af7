"""Read what a checkpoint declares of its weights, and hold the stored tensors against it."""
