"""Losses of saliency and of classes, as pure functions of tensors; float32 whatever comes in. Each is a mean over items.

After QD-DETR: scores of clips are taught by pairs (margin), by the whole order of the ratings (rank), and by a query that
does not happen in the video (negative).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.nn.detr.matcher import Matches

PADDING_SCORE = -1000.0
"""Stands for a clip that is not there; before the temperature, as published."""
CALM = 1e-6
"""parity: added inside the logarithm and to the number of positives."""
NUM_LEVELS = 11
"""Ratings go to 12, and the published sum over them stops at 11."""


def margin_loss(
    scores: Float[Tensor, "items clips"],
    better: Int[Tensor, "items pairs"],
    worse: Int[Tensor, "items pairs"],
    pair_mask: Bool[Tensor, "items pairs"],
    *,
    margin: float = 0.2,
) -> Tensor:
    """Twice the mean over all pairs (those that are masked count as 0) of what the better clip lacks."""
    scores = scores.float()
    lack = F.relu(margin + scores.gather(1, worse) - scores.gather(1, better))
    return 2 * (lack * pair_mask).sum() / max(pair_mask.numel(), 1)


def rank_loss(
    scores: Float[Tensor, "items clips"],
    labels: Float[Tensor, "items clips"],
    mask: Bool[Tensor, "items clips"],
    *,
    temperature: float = 0.5,
    divisor: float = 12.0,
) -> Tensor:
    """For every level, clips of that level or above against all others, as a cross-entropy; summed over levels / divisor."""
    logit = scores.float().masked_fill(~mask, PADDING_SCORE) / temperature
    logit = logit - logit.amax(dim=1, keepdim=True).detach()
    log_share = logit - torch.log(logit.exp().sum(dim=1, keepdim=True) + CALM)
    levels = torch.arange(1, NUM_LEVELS + 1, device=scores.device)
    is_positive = ((labels[None] >= levels[:, None, None]) & mask).float()  # levels, items, clips
    share = torch.einsum("lic,ic->li", is_positive, log_share)
    return -(share / (is_positive.sum(-1) + CALM)).sum() / (divisor * len(scores))


def negative_loss(
    scores: Float[Tensor, "items clips"], mask: Bool[Tensor, "items clips"], *, published: bool = False
) -> Tensor:
    """-log(1 - sigmoid(score)) summed over the clips of an item."""
    # parity: the published form is infinite where the sigmoid rounds to 1.
    each = -torch.log(1 - torch.sigmoid(scores.float())) if published else F.softplus(scores.float())
    return each.masked_fill(~mask, 0.0).sum() / max(len(scores), 1)


def class_loss(
    logits: Float[Tensor, "layers items queries 2"], matches: Matches, *, background_weight: float = 0.1
) -> Float[Tensor, " layers"]:
    """Matched queries are foreground (class 0), the others background; a plain mean over items and queries."""
    foreground, background = logits.float().unbind(-1)
    is_matched = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    is_matched[matches.layer, matches.item, matches.query] = True
    missed = F.softplus(background - foreground)
    invented = background_weight * F.softplus(foreground - background)
    return torch.where(is_matched, missed, invented).mean(dim=(1, 2))


def alignment_loss(
    queries: Float[Tensor, "layers items queries dim"],
    words: Float[Tensor, "items words dim"],
    word_mask: Bool[Tensor, "items words"],
    matches: Matches,
    *,
    temperature: float,
) -> Float[Tensor, " layers"]:
    """Matched queries against all queries of their item, by how they agree with the words added up; 0 for an item that has
    no match."""
    heard = (words.float() * word_mask[..., None]).sum(1)
    agreed = torch.einsum("liqd,id->liq", queries.float(), heard) / temperature
    is_matched = torch.zeros_like(agreed)
    is_matched[matches.layer, matches.item, matches.query] = 1.0
    num_matched = is_matched.sum(-1)
    each = agreed.logsumexp(-1) - (agreed * is_matched).sum(-1) / num_matched.clamp(min=1)
    return (each * (num_matched > 0)).mean(-1)
