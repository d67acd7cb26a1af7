"""Benchmarks whose figures the documentation quotes, each a command."""
