"""Training heads from the cache."""
