"""Published figures of these GPUs and models, dated and sourced."""
