"""Metrics of heads that answer with ranked spans."""
