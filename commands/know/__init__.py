"""Verbs that fill the warehouse and read it."""
