"""Layers that mix rows over time: transformers and state space models."""
