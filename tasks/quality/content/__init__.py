"""Name a task by what it asks and how that is scored, whatever its name, its files and its ids."""
