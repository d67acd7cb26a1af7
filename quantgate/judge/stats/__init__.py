"""The exact statistics of a verdict; nothing here knows a policy or a run."""
