"""Statistics of a verdict; no module here knows a policy or a run."""
