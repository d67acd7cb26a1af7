"""Verbs that ask the warehouse and fill it."""
