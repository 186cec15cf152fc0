"""The saliency of clips, taught three ways at once: by pairs, by the order of ratings, by a query that does not happen."""

from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.nn.detr.moment_losses import margin_loss, negative_loss, rank_loss
from qle.nn.detr.set_losses import SetLossConfig


class SaliencyTargets(Protocol):
    """What MomentTargets of heads/moments.py has."""

    @property
    def saliency(self) -> Float[Tensor, "items clips"]: ...

    @property
    def better(self) -> Int[Tensor, "items pairs"]: ...

    @property
    def worse(self) -> Int[Tensor, "items pairs"]: ...

    @property
    def pair_mask(self) -> Bool[Tensor, "items pairs"]: ...


def pair_term(scores: Float[Tensor, "items clips"], targets: SaliencyTargets, config: SetLossConfig) -> Tensor:
    """Clips inside a moment lead those outside."""
    return margin_loss(scores, targets.better, targets.worse, targets.pair_mask, margin=config.margin)


def order_terms(
    scores: Float[Tensor, "items clips"],
    negative: Float[Tensor, "items clips"] | None,
    mask: Bool[Tensor, "items clips"],
    negative_mask: Bool[Tensor, " items"] | None,
    targets: SaliencyTargets,
    config: SetLossConfig,
    *,
    published: bool = False,
) -> dict[str, Tensor]:
    """`saliency_rank`: clips in the order of their ratings, those under the negative query behind them all. `saliency_negative`:
    the latter score low. Without negatives only the first. The mask of negatives is True for an item that has one."""
    labels, terms = targets.saliency, dict[str, Tensor]()
    if negative is not None:
        wrong = mask if negative_mask is None else mask & negative_mask[:, None]
        terms["saliency_negative"] = negative_loss(negative, wrong, published=published)
        scores, mask = torch.cat([scores, negative], dim=1), torch.cat([mask, wrong], dim=1)
        labels = torch.cat([labels, torch.zeros_like(labels)], dim=1)
    terms["saliency_rank"] = rank_loss(
        scores, labels, mask, temperature=config.rank_temperature, divisor=config.rank_divisor
    )
    return terms
