"""What earlier runs leave a run to do."""
