"""Verbs about cost and decisions."""
