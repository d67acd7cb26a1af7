"""The pipeline: one Prefect flow a file."""
