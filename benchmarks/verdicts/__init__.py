"""How often the judge errs, what it sees, and how many documents a verdict takes."""
