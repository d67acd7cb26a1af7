"""The DuckDB warehouse: migrations, views, and the code that loads, judges, prices and publishes."""
