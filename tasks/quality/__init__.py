"""Ask a suite's tasks through lm-eval, in a process of their own."""
