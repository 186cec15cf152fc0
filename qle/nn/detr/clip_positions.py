"""Where a clip, a word or a span stands, as numbers that attention can use.

Clips: sines over how far the clip is into its own video, so that padding changes nothing. Words: a learned table. Spans: sines
over centre and width. Width `d` means d/2 frequencies, a sine and a cosine of each, side by side.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.errors import InputError
from qle.nn.dropout import Dropout

TEMPERATURE = 10000.0
"""Longest wavelength over shortest."""


def clip_positions(mask: Bool[Tensor, "items clips"], dim: int) -> Float[Tensor, "items clips dim"]:
    """Sines over the number of the clip divided by the number of real clips; positions after the last one repeat it."""
    count = mask.to(torch.float32).cumsum(dim=1)
    return _sines(count / (count[:, -1:] + 1e-6), dim)


def span_positions(
    spans: Float[Tensor, "*batch 2"], features_per_coordinate: int
) -> Float[Tensor, "*batch two_coordinates"]:
    """Sines over both coordinates (fractions of the window), those of the first before those of the second."""
    return _sines(spans.float(), features_per_coordinate).flatten(-2)


def _sines(fraction: Tensor, dim: int) -> Tensor:
    """(..., dim): sine, cosine, sine, cosine, ... of the fraction of a whole turn."""
    steps = torch.arange(0, dim, 2, dtype=torch.float32, device=fraction.device)
    angle = fraction[..., None] * (2 * math.pi) / TEMPERATURE ** (steps / dim)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class WordPositions(nn.Module):
    """LayerNorm(words + table): these "positions" carry what the word is as well as where it stands."""

    def __init__(self, max_words: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(max_words, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, words: Float[Tensor, "items words dim"]) -> Float[Tensor, "items words dim"]:
        num_words, max_words = words.shape[1], self.table.num_embeddings
        if num_words > max_words:
            raise InputError(
                f"a query of {num_words} word pieces: this head knows places for {max_words}\n"
                "shorten the query, or train with a larger max_words"
            )
        placed: Tensor = self.dropout(self.norm(words + self.table.weight[:num_words]))
        return placed
