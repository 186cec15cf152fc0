"""Arithmetic of spans with gradients, in fractions of a window: (centre, width) -> (start, end), overlap."""

import torch
from jaxtyping import Float
from torch import Tensor

SHORTEST = torch.finfo(torch.float32).tiny
"""Divisor of two spans of no length at one point, whose overlap is then 0; far below any other union."""


def to_edges(centre_width: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """(start, end)."""
    centre, width = centre_width.unbind(-1)
    return torch.stack([centre - 0.5 * width, centre + 0.5 * width], dim=-1)


def paired_giou(a: Float[Tensor, "*batch 2"], b: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """Generalised overlap of (start, end) with (start, end), from -1 (far apart) to 1 (the same)."""
    (a_start, a_end), (b_start, b_end) = a.unbind(-1), b.unbind(-1)
    shared = (torch.minimum(a_end, b_end) - torch.maximum(a_start, b_start)).clamp(min=0)
    union = (a_end - a_start) + (b_end - b_start) - shared
    hull = torch.maximum(a_end, b_end) - torch.minimum(a_start, b_start)
    return shared / union.clamp(min=SHORTEST) - (hull - union) / hull.clamp(min=SHORTEST)


def pairwise_giou(a: Float[Tensor, "*batch n 2"], b: Float[Tensor, "*batch m 2"]) -> Float[Tensor, "*batch n m"]:
    """Generalised IoU of every span of `a` with every span of `b`."""
    return paired_giou(a[..., :, None, :], b[..., None, :, :])


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """log(x / (1 - x)), both arguments no smaller than eps."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
