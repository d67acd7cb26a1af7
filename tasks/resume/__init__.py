"""Decide what earlier runs leave a run to do, and begin it so."""
