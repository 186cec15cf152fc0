"""Training heads from the cache: what is the same for every task."""
