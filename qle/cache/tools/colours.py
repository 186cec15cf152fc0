"""Tokens as colours: the first three principal components of a video's patch tokens become red, green and blue.

Enters: token maps (`rows cols dim` behind the time axis). Leaves: uint8 rgb maps. One basis and one scale for the whole
video, so that a colour means the same in its every frame, and equal tokens of two runs get equal colours.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

MAX_TOKENS = 20_000
"""Tokens that the basis is found from; more change nothing that an eye could see."""

_LOW, _HIGH = 1, 99
"""Percentiles that become 0 and 255: a few extreme tokens must not make the rest grey."""


@dataclass(frozen=True, slots=True)
class TokenColours:
    """A basis of three directions, and what range of each becomes 0 to 255."""

    mean: np.ndarray
    basis: np.ndarray
    """(dim, 3)."""
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, tokens: np.ndarray) -> Self:
        """From tokens of any leading shape; the last axis is `dim`."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        flat = flat[:: -(-len(flat) // MAX_TOKENS)].astype(np.float64)
        mean = flat.mean(axis=0)
        _, directions = np.linalg.eigh(np.cov(flat - mean, rowvar=False).reshape(flat.shape[1], -1))
        basis = np.zeros((flat.shape[1], 3))
        num = min(3, flat.shape[1])
        basis[:, :num] = directions[:, ::-1][:, :num]
        # The sign of a direction is arbitrary: its largest entry is made positive.
        peak = np.abs(basis).argmax(axis=0)
        basis *= np.where(basis[peak, range(3)] < 0, -1.0, 1.0)
        low, high = np.percentile((flat - mean) @ basis, [_LOW, _HIGH], axis=0)
        return cls(mean, basis, low, high)

    def apply(self, tokens: np.ndarray) -> np.ndarray:
        """`... dim` to `... 3` uint8."""
        projected = (tokens.astype(np.float64) - self.mean) @ self.basis
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        scaled = np.clip((projected - self.low) / span, 0.0, 1.0) * 255.0
        rgb: np.ndarray = np.rint(np.nan_to_num(scaled)).astype(np.uint8)
        return rgb
