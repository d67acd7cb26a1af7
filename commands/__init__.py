"""Say: the command line, one verb a file."""
