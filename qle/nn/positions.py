"""Where and when: encodings of grid cells and of real time.

Rows of a video are asked for by seconds, not by their number: at another sample rate, or after a hole in the recording, the
same two events are the same distance apart.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

SHORTEST_S, LONGEST_S = 0.5, 1024.0
"""Wavelengths of the rotary encoding of time, from neighbouring frames to the phases of an operation."""


def grid_positions(rows: int, cols: int, dim: int) -> Float[Tensor, "cells dim"]:
    """Sines and cosines of the centres of the cells of a grid; the same place has about the same code on any grid."""
    quarter = max(dim // 4, 1)
    frequencies = math.pi * 2.0 ** torch.linspace(-1, 3, quarter)
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(cols) + 0.5) / cols
    waves = [wave for centres in (y, x) for wave in _waves(centres, frequencies)]
    by_row = torch.cat(waves[:2], dim=-1)[:, None, :].expand(rows, cols, -1)
    by_col = torch.cat(waves[2:], dim=-1)[None, :, :].expand(rows, cols, -1)
    code = torch.cat([by_row, by_col], dim=-1).reshape(rows * cols, -1)
    return torch.nn.functional.pad(code, (0, dim - code.shape[1])) if code.shape[1] < dim else code[:, :dim]


def _waves(centres: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    angle = centres[:, None] * frequencies
    return angle.sin(), angle.cos()


def rotary_angles(times_s: Float[Tensor, "batch time"], head_dim: int) -> Float[Tensor, "batch time half"]:
    """Angles by which pairs of features turn at each time; computed in float64, since a time may be hours."""
    half = head_dim // 2
    exponent = torch.arange(half, device=times_s.device, dtype=torch.float64) / max(half - 1, 1)
    wavelengths = SHORTEST_S * (LONGEST_S / SHORTEST_S) ** exponent
    turns = times_s.double()[..., None] / wavelengths
    return (2 * math.pi * (turns - turns.floor())).float()


def rotate(
    x: Float[Tensor, "batch heads time head_dim"], angles: Float[Tensor, "batch time half"]
) -> Float[Tensor, "batch heads time head_dim"]:
    """Turn pairs of features: the product of two rotated vectors depends on the difference of their times alone."""
    half = angles.shape[-1]
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)
