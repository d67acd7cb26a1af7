"""Check what this host needs, and the catalogue of models."""
