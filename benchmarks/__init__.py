"""The figures that the documentation quotes, each a command."""
