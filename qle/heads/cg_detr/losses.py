"""What CG-DETR is taught beside its spans: saliency, attention on the words, and which moment belongs to which sentence.

    MomentOutput (with the extras of the head) + MomentBatch -> terms by name, not weighted

The head (cg_detr.py) says what stands in the extras and how it differs from the published program. Nothing here waits for the
device, but in the published mode, whose means depend on how many items of the batch have a negative.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from qle.heads.cg_detr.alignment_losses import (
    distillation_loss,
    membership_loss,
    moment_sentence_loss,
    orthogonality_loss,
)
from qle.heads.moments import MomentBatch, MomentOutput, MomentTargets
from qle.nn.detr.moment_losses import negative_loss, rank_loss
from qle.nn.detr.saliency_losses import pair_term
from qle.nn.detr.set_losses import SetLossConfig
from qle.nn.losses import masked_mean

SURE = 1 - 1e-6
"""Attention on a wrong query that costs most."""


def saliency_terms(
    output: MomentOutput, batch: MomentBatch, config: SetLossConfig, *, published: bool
) -> dict[str, Tensor]:
    """Rank, margin and, with a negative query, its own."""
    scores, negative = output.saliency, output.negative_saliency
    terms = {"saliency_margin": pair_term(scores, _targets(batch), config)}
    terms["saliency_rank"] = _rank_term(scores, negative, batch, config, published=published, sums_all=True)
    if negative is not None and batch.negative_mask is not None:
        over_all = negative_loss(negative, _of_negatives(batch), published=published)
        terms["saliency_negative"] = over_all * batch.num_items / batch.negative_mask.sum().clamp(min=1)
    return terms


def attention_terms(
    output: MomentOutput, batch: MomentBatch, config: SetLossConfig, *, published: bool
) -> dict[str, Tensor]:
    """The losses of saliency once more, on the share of attention that words get; and that share against relevance."""
    attention, negative = output.extras["attention"], output.extras.get("negative_attention")
    terms = {"attention_margin": pair_term(attention, _targets(batch), config)}
    # parity: items without a negative are added to a sum that nothing reads.
    terms["attention_rank"] = _rank_term(attention, negative, batch, config, published=published, sums_all=False)
    if negative is not None and batch.negative_mask is not None:
        share = negative if published else negative.clamp(max=SURE)
        each = -torch.log(1 - share).masked_fill(~_of_negatives(batch), 0.0)
        terms["attention_negative"] = each.sum() / batch.negative_mask.sum().clamp(min=1)
    taught = torch.ones_like(batch.clip_mask) if published else batch.clip_mask
    each = F.binary_cross_entropy(attention, _targets(batch).saliency.clamp(0, 1), reduction="none")
    return terms | {"attention_bce": masked_mean(each, taught)}


def alignment_terms(
    extras: Mapping[str, Tensor], batch: MomentBatch, prompts: Float[Tensor, "prompts dim"], *, published: bool
) -> dict[str, Tensor]:
    """Moments and sentences find each other, attention follows where they agree, dummies and prompts differ."""
    relevant, items = _targets(batch).relevant, torch.arange(batch.num_items, device=batch.clips.device)
    moments, rest = extras["moment"], extras["rest"]
    align = moment_sentence_loss(moments, rest, extras["sentence"], items)
    align = align + moment_sentence_loss(moments, rest, extras["dummy_sentence"], _dummy_targets(items, published))
    align = align + membership_loss(moments, extras["frames"], relevant, batch.clip_mask, published=published)
    words = None if published else extras["source_mask"]
    return {
        "align": align,
        "distill": distillation_loss(extras["weights"], extras["similarity"], relevant, words),
        "orthogonal": orthogonality_loss(extras["dummies"]) + orthogonality_loss(prompts),
    }


def term_counts(batch: MomentBatch) -> dict[str, Tensor]:
    """Over how many entries the terms of this file are means, where it is not over items."""
    counts = {"distill": _targets(batch).relevant.sum(), "attention_bce": batch.clip_mask.sum()}
    if batch.negative_mask is not None:
        counts |= dict.fromkeys(("saliency_negative", "attention_negative"), batch.negative_mask.sum())
    return counts


def _rank_term(
    scores: Tensor,
    negative: Tensor | None,
    batch: MomentBatch,
    config: SetLossConfig,
    *,
    published: bool,
    sums_all: bool,
) -> Tensor:
    """The order of ratings, against all that does not happen."""
    labels, mask = _targets(batch).saliency, batch.clip_mask
    parts: list[Tensor | slice] = [slice(None)]
    if negative is not None and batch.negative_mask is not None:
        scores, mask = torch.cat([scores, negative], dim=1), torch.cat([mask, _of_negatives(batch)], dim=1)
        labels = torch.cat([labels, torch.zeros_like(labels)], dim=1)
        if published and batch.negative_mask.any():
            alone = (~batch.negative_mask).nonzero().flatten()
            # parity: a mean of its own for items without a negative; of a single one it is a softmax over nothing.
            parts = [batch.negative_mask, *([alone] if sums_all and len(alone) > 1 else [])]
    order = [
        rank_loss(
            scores[part], labels[part], mask[part], temperature=config.rank_temperature, divisor=config.rank_divisor
        )
        for part in parts
    ]
    return torch.stack(order).sum()


def _targets(batch: MomentBatch) -> MomentTargets:
    assert batch.targets is not None
    return batch.targets


def _of_negatives(batch: MomentBatch) -> Bool[Tensor, "items clips"]:
    """Real clips of items that have a negative."""
    assert batch.negative_mask is not None
    return batch.clip_mask & batch.negative_mask[:, None]


def _dummy_targets(items: Tensor, published: bool) -> Tensor:
    """Dummies belong to everything but the item's own moment; parity: the first such column alone."""
    if published:
        return (items == 0).long()
    other = ~torch.eye(len(items), 2 * len(items), dtype=torch.bool, device=items.device)
    return other / other.sum(1, keepdim=True)
