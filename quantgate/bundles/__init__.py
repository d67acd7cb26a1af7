"""The run bundle, the one contract between measuring and knowing: read and written here alone."""
