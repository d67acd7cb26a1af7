"""What a validation or a matrix is to measure, and where it fits."""
