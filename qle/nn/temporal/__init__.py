"""Layers that mix rows over time: (features, times in seconds, mask) -> features of the same shape.

mixers.py          the mixers by name
transformer.py     attention over time with real positions; memory grows with the length, not with its square
ssm.py             a selective state space mixer
ssm_published.py   the state space block of the published QLE code, kept to load its checkpoints
"""
