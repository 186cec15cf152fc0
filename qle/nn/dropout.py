"""Dropout that costs little on a CPU, where drawing one Bernoulli number an element takes a fifth of a training step.

There, whole 64-bit numbers are drawn and each of their bytes decides about one element: an eighth of the draws. A share is
then a multiple of 1/256, and what is kept is scaled by exactly the share that is kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Each element is zero with the given share while training, and all are scaled so that the mean stays."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.share) if self.training else x


class StochasticDepth(nn.Module):
    """Whole items of a residual branch are zero with the given share while training, and the others scaled likewise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        is_kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= self.share
        return x * is_kept.to(x.dtype).div_(1 - self.share)


def dropout(x: Tensor, share: float) -> Tensor:
    """As if training."""
    if not share:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, share)
    steps = min(max(round(share * 256), 1), 255)
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    is_kept = (draws.view(torch.uint8)[: x.numel()] >= steps).view(x.shape)
    return x * is_kept.to(x.dtype).mul_(256 / (256 - steps))
