"""Decide when: one Prefect flow a file, and what plans, submits and watches runs."""
