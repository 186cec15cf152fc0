"""Which query answers for which moment: the cheapest assignment, for all layers and items from one tensor of costs.

logits, spans (layers, items, queries, 2) + targets -> costs on the device -> one copy to the host -> Matches

The assignment itself is the Hungarian algorithm on a host; asking the device once for everything is what keeps it from
waiting layers x items times a step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qle.errors import ConfigError
from qle.nn.spans import pairwise_giou, to_edges


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchCosts:
    """Weights of the costs of a pair of query and moment; the cheapest pairs are matched."""

    span: float = 10.0
    """Weight of the distance |centre - centre| + |width - width|."""
    giou: float = 1.0
    """Weight of minus the generalised overlap."""
    label: float = 4.0
    """Weight of minus the probability of the foreground."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"costs.{name} = {getattr(self, name)}: expected 0 or more")


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs, ordered by layer, then item, then query: min(queries, targets) of every item in every layer."""

    layer: Int[Tensor, " pairs"]
    item: Int[Tensor, " pairs"]
    query: Int[Tensor, " pairs"]
    target: Int[Tensor, " pairs"]
    """Number among all targets of the batch."""


@torch.no_grad()
def match(
    logits: Float[Tensor, "layers items queries 2"],
    spans: Float[Tensor, "layers items queries 2"],
    target_spans: Float[Tensor, "targets 2"],
    counts: Sequence[int],
    costs: MatchCosts,
) -> Matches:
    """Spans are (centre, width); `counts` says how many of the targets belong to each item, item after item."""
    from scipy.optimize import linear_sum_assignment  # a third of a second to load, and only training matches

    first = np.concatenate([[0], np.cumsum(counts)])
    if not first[-1]:
        nothing = torch.zeros(0, dtype=torch.int64, device=logits.device)
        return Matches(layer=nothing, item=nothing, query=nothing, target=nothing)
    # Rows of equal length: entries past an item's own targets repeat the last target and are cut off below.
    index = np.minimum(first[:-1, None] + np.arange(max(counts)), first[-1] - 1)
    padded = target_spans[torch.from_numpy(index).to(logits.device, non_blocking=True)]
    cost = _costs(logits.float(), spans.float(), padded.float(), costs).cpu().numpy()
    pairs = [
        linear_sum_assignment(of_item[:, :count])
        for of_layer in cost
        for of_item, count in zip(of_layer, counts, strict=True)
    ]
    sizes = np.array([len(query) for query, _ in pairs])
    layer, item = np.divmod(np.arange(len(pairs)).repeat(sizes), len(counts))
    query, target = (np.concatenate(part) for part in zip(*pairs, strict=True))
    rows = torch.from_numpy(np.stack([layer, item, query, target + first[item]]))
    return Matches(*rows.to(logits.device, non_blocking=True))


def _costs(
    logits: Tensor, spans: Tensor, targets: Float[Tensor, "items most 2"], costs: MatchCosts
) -> Float[Tensor, "layers items queries most"]:
    apart = (spans[..., :, None, :] - targets[:, None]).abs().sum(-1)
    overlap = pairwise_giou(to_edges(spans), to_edges(targets))
    foreground = logits.softmax(-1)[..., :1]
    total = costs.span * apart - costs.giou * overlap - costs.label * foreground
    return torch.nan_to_num(total)  # a training that has lost its numbers ends at the loss, which says so
