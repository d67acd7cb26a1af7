"""Start an engine in its own environment, and read what it says of itself."""
