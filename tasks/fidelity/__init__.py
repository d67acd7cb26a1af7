"""Compare next-token distributions on a fixed text."""
