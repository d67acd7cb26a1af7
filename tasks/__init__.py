"""Measure: what a run does, one folder a step; plain functions without Prefect."""
