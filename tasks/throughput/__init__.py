"""Measure load levels with vLLM's own bench."""
