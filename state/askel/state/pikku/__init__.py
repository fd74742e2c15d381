"""Sharing a prefix with services of the npm package @pikku/redis."""
