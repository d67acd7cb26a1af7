"""Verbs that keep hosts and a fleet in order."""
