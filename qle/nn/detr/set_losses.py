"""Losses of predicted sets of spans: matched queries are pulled to their moments, the rest to the background.

logits, spans (layers, items, queries, 2) + MomentTargets -> terms by name, and the matches they rest on

The last layer's terms are `span`, `giou` and `label`; those of layer k before it `span_<k>`, `giou_<k>`, `label_<k>`. Each
layer has its own matching, all of them from one tensor of costs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from qle.errors import ConfigError
from qle.nn.detr.matcher import MatchCosts, Matches, match
from qle.nn.detr.moment_losses import class_loss
from qle.nn.spans import paired_giou, to_edges

SET_TERMS = ("span", "giou", "label")


class SpanTargets(Protocol):
    """What MomentTargets of heads/moments.py has."""

    @property
    def spans(self) -> Float[Tensor, "targets 2"]: ...

    @property
    def counts(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLossConfig:
    """Weights of the terms, as published for QVHighlights."""

    span: float = 10.0
    """|centre - centre| and |width - width|, a mean over pairs and both."""
    giou: float = 1.0
    """1 - generalised overlap, a mean over pairs."""
    label: float = 4.0
    """Cross-entropy of the class, a mean over all queries."""
    saliency: float = 1.0
    """Margin, rank and negative-pair terms of the saliency, all of them."""
    background_weight: float = 0.1
    """Weight of queries that match nothing, against those that do, within `label`."""
    margin: float = 0.2
    """Difference of saliency by which the better clip of a pair should lead."""
    rank_temperature: float = 0.5
    rank_divisor: float = 12.0
    """Divides the sum over the levels of the ratings."""
    costs: MatchCosts = field(default_factory=MatchCosts)
    """Weights of the costs by which queries and moments are matched."""

    def __post_init__(self) -> None:
        for name in ("span", "giou", "label", "saliency", "background_weight", "margin"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"losses.{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("rank_temperature", "rank_divisor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"losses.{name} = {getattr(self, name)}: expected a number above 0")

    def weights(self) -> dict[str, float]:
        """Weights of the set and saliency terms, by name."""
        return {name: getattr(self, name) for name in (*SET_TERMS, "saliency")}


def set_losses(
    logits: Float[Tensor, "layers items queries 2"],
    spans: Float[Tensor, "layers items queries 2"],
    targets: SpanTargets,
    config: SetLossConfig,
    *,
    aux_loss: bool = True,
) -> tuple[dict[str, Tensor], Matches]:
    """Terms are not weighted. Without `aux_loss` only the last layer has any, and the matches are of it alone."""
    first = 0 if aux_loss else len(logits) - 1
    logits, spans = logits[first:].float(), spans[first:].float()
    num_layers = len(logits)
    matches = match(logits, spans, targets.spans, targets.counts, config.costs)
    guessed = spans[matches.layer, matches.item, matches.query].unflatten(0, (num_layers, -1))
    true = targets.spans.float()[matches.target].unflatten(0, (num_layers, -1))
    num_pairs = max(guessed.shape[1], 1)
    values = {
        "span": (guessed - true).abs().sum(dim=(1, 2)) / (2 * num_pairs),
        "giou": (1 - paired_giou(to_edges(guessed), to_edges(true))).sum(dim=1) / num_pairs,
        "label": class_loss(logits, matches, background_weight=config.background_weight),
    }
    names = [*range(num_layers - 1), None]
    terms = {
        name if layer is None else f"{name}_{layer}": value
        for name, of_layers in values.items()
        for layer, value in zip(names, of_layers.unbind(), strict=True)
    }
    return terms, matches


def set_loss_counts(
    counts: Sequence[int], num_queries: int, num_layers: int, device: torch.device
) -> dict[str, Tensor]:
    """Over how many pairs the terms of pairs are means, by name; label terms are means over items."""
    pairs = torch.tensor(sum(min(num_queries, count) for count in counts), device=device)
    layers = ["", *(f"_{layer}" for layer in range(num_layers - 1))]
    return {f"{name}{layer}": pairs for name in ("span", "giou") for layer in layers}


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Terms times the weight of their name; layers and parts of a term share it: label_0 that of label, saliency_rank that
    of saliency."""
    return {name: term * weights[name if name in weights else name.partition("_")[0]] for name, term in terms.items()}
