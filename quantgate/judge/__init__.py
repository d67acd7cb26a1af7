"""Decide: samples in, verdicts out. Pure: no file, no network, no warehouse."""
