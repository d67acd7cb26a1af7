"""Find a checkpoint, pull it, and read from its files what it is."""
