"""Metrics of heads that score every row."""
