"""What others published of these GPUs and models, dated and sourced."""
