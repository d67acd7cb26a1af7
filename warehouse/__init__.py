"""Know: the DuckDB file, what loads it, judges its runs, prices and publishes them."""
