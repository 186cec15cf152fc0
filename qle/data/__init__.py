"""Annotations, synthetic videos, and batches read from the cache. Nothing here decodes a pixel or runs a backbone."""
