"""Quantgate: measured cost per token joined with a paired, statistically decided quality delta."""
