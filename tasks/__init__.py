"""The steps: one step a file, plain functions with a thin Prefect shell."""
