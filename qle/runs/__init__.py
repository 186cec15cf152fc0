"""A trained head on disk: its record, its weights, the spaces of the cache that it reads."""
