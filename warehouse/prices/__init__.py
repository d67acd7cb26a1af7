"""Dated offers of GPU hours: kept, imported, listed."""
