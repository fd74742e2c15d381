"""The locks of runs and steps."""
