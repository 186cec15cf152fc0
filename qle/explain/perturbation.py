"""Does the head use what its map says? Patch tokens are masked in the order of the map, and the raw logit is watched.

    one row's tokens + its map -> variants with 0 .. all cells masked -> head.read_rows -> curves -> areas

Masked in decreasing relevance the logit should fall at once (small area); in increasing relevance it should stay up (large
area). The second is also the insertion curve: putting the most relevant share f into an empty row leaves the same tokens as
taking the least relevant 1 - f out of the full one. A masked cell gets the mean token of the data, which says nothing and, unlike
zeros, is a token that the head has seen the like of.

What this can not show: tokens of a frozen backbone have already mixed, so a masked token hides a cell from the head, not from
the backbone. The test is about the head.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qle.heads.rows import RowHead
from qle.text.base import Words

NUM_STEPS = 16
NUM_RANDOM = 2
"""Random orders a row; their areas are averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """Areas under logit over the share of cells that changed (0..1), so each is a mean logit."""

    deletion: float
    """Masked in decreasing relevance: lower is better."""
    insertion: float
    """Filled in decreasing relevance: higher is better. Equal to masking in increasing relevance."""
    random: float
    """Masked in random order: what both are held against."""
    full: float
    """Logit with every token."""
    empty: float
    """Logit with every token masked."""

    @property
    def gap(self) -> float:
        """Above 0: the map orders cells better than it would the other way round."""
        return self.insertion - self.deletion


@torch.no_grad()
def perturb(
    head: RowHead,
    tokens: Mapping[str, Tensor],
    words: Words,
    relevance: np.ndarray,
    *,
    fill: Tensor,
    rng: np.random.Generator,
    num_steps: int = NUM_STEPS,
) -> Perturbation:
    """One row (streams of one row each, `patch` (1, rows, cols, dim)), one query, its (rows, cols) map."""
    num_cells = relevance.size
    decreasing = np.argsort(-relevance.ravel(), kind="stable")
    orders = [decreasing, decreasing[::-1], *(rng.permutation(num_cells) for _ in range(NUM_RANDOM))]
    counts = np.unique(np.linspace(0, num_cells, num_steps + 1).round().astype(int))
    masked = np.zeros((len(orders), len(counts), num_cells), bool)
    for order, masks in zip(orders, masked, strict=True):
        for count, mask in zip(counts, masks, strict=True):
            mask[order[:count]] = True
    logits = _logits(head, tokens, words, masked.reshape(-1, *relevance.shape), fill)
    curves = logits.reshape(len(orders), len(counts))
    areas = np.trapezoid(curves, counts / num_cells, axis=1)
    return Perturbation(
        deletion=float(areas[0]),
        insertion=float(areas[1]),
        random=float(areas[2:].mean()),
        full=float(curves[0, 0]),
        empty=float(curves[0, -1]),
    )


def _logits(head: RowHead, tokens: Mapping[str, Tensor], words: Words, masked: np.ndarray, fill: Tensor) -> np.ndarray:
    """Every variant is a row of its own: heads read rows one by one, so one pass does for all."""
    where = torch.from_numpy(masked).to(fill.device)[..., None]
    variants = {name: stream.expand(len(masked), *stream.shape[1:]) for name, stream in tokens.items()}
    variants["patch"] = torch.where(where, fill.to(variants["patch"].dtype), variants["patch"])
    logits: np.ndarray = head.read_rows(variants, words).raw_logit[0].float().cpu().numpy()
    return logits
