"""Losses of CG-DETR that tie frames to words: which moment belongs to which sentence, and where attention should go."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from qle.nn.losses import masked_mean

LEAST = 1e-6
"""Under logarithms."""


def moment_sentence_loss(
    moments: Float[Tensor, "items dim"],
    others: Float[Tensor, "items dim"],
    sentences: Float[Tensor, "items dim"],
    targets: Float[Tensor, " items"],
) -> Float[Tensor, ""]:
    """Cross-entropy over 2 x items candidates: of each moment with every sentence, and of each rest of a video with every
    sentence. `targets` names the right column of each row."""
    sentences = F.normalize(sentences, dim=1)
    own, rest = (F.normalize(tokens, dim=1) @ sentences.T for tokens in (moments, others))
    return F.cross_entropy(torch.cat([own, rest], dim=1), targets)


def membership_loss(
    moments: Float[Tensor, "items dim"],
    frames: Float[Tensor, "items clips dim"],
    relevant: Bool[Tensor, "items clips"],
    clip_mask: Bool[Tensor, "items clips"],
    *,
    published: bool = False,
) -> Float[Tensor, ""]:
    """Does the clip lie in the moment? Binary cross-entropy of the product of clip and moment, its log cut at -100 as torch
    cuts it; parity: divided by all places of the batch, padding included."""
    logit = torch.einsum("id,icd->ic", moments, frames)
    loss = F.binary_cross_entropy_with_logits(logit, relevant.to(logit.dtype), reduction="none").clamp(max=100.0)
    return (loss * clip_mask).mean() if published else masked_mean(loss, clip_mask)


def distillation_loss(
    weights: Float[Tensor, "items clips words"],
    similarity: Float[Tensor, "items clips words"],
    relevant: Bool[Tensor, "items clips"],
    word_mask: Bool[Tensor, "items words"] | None,
) -> Float[Tensor, ""]:
    """KL of attention from the softmax of similarities, which learns nothing here, over the clips of moments. Without a mask
    padded words are classes like others (parity: published so); 0 where nothing is relevant."""
    if word_mask is not None:
        similarity = similarity.masked_fill(~word_mask[:, None], float("-inf"))
    wanted = similarity.softmax(-1).detach()
    loss = F.kl_div((weights + LEAST).log(), wanted, reduction="none")
    each = loss.mean(-1) if word_mask is None else (loss * word_mask[:, None]).sum(-1) / word_mask.sum(-1)[:, None]
    return (each * relevant).sum() / relevant.sum().clamp(min=1)


def orthogonality_loss(vectors: Float[Tensor, "*batch count dim"]) -> Float[Tensor, ""]:
    """Mean absolute cosine between different vectors of a set; one side gets no gradient."""
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    cosine = unit @ unit.transpose(-1, -2).detach()
    same = torch.eye(cosine.shape[-1], dtype=torch.bool, device=cosine.device)
    apart: Tensor = cosine.masked_fill(same, 0.0).abs().mean()
    return apart
