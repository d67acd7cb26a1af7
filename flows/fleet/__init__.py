"""A Prefect server's pools, deployments and runs."""
