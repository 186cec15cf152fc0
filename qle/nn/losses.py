"""Losses as pure functions of tensors. Each is a mean over what its mask allows, and 0 where it allows nothing."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(values: Tensor, mask: Bool[Tensor, "..."]) -> Tensor:
    """Mean of the values where the mask is True."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def binary_cross_entropy(
    logit: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    *,
    positive_weight: float = 1.0,
) -> Tensor:
    """-w y log p - (1 - y) log(1 - p); targets may be fractions."""
    weight = torch.tensor(positive_weight, dtype=logit.dtype, device=logit.device)
    return masked_mean(F.binary_cross_entropy_with_logits(logit, target, pos_weight=weight, reduction="none"), mask)


def smoothness(logit: Float[Tensor, "*batch time"], mask: Bool[Tensor, "*batch time"]) -> Tensor:
    """Mean |z_{t+1} - z_t| over neighbours that are both there."""
    return masked_mean((logit[..., 1:] - logit[..., :-1]).abs(), mask[..., 1:] & mask[..., :-1])


def evidential_cross_entropy(
    evidence: Float[Tensor, "*shape 2"], target: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]
) -> Tensor:
    """Expected cross-entropy of a Beta(1 + e1, 1 + e0): sum_k y_k (digamma(S) - digamma(a_k))."""
    alpha, beta = evidence[..., 0] + 1, evidence[..., 1] + 1
    whole = torch.digamma(alpha + beta)
    loss = target * (whole - torch.digamma(alpha)) + (1 - target) * (whole - torch.digamma(beta))
    return masked_mean(loss, mask)


def misleading_evidence(
    evidence: Float[Tensor, "*shape 2"], target: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]
) -> Tensor:
    """KL(Beta(a~, b~) || Beta(1, 1)) after the evidence for the true class is taken away: it grows with every bit of
    evidence for the wrong one. (The published term falls as that grows.)"""
    alpha = target + (1 - target) * (evidence[..., 0] + 1)
    beta = (1 - target) + target * (evidence[..., 1] + 1)
    return masked_mean(beta_divergence(alpha, beta), mask)


def beta_divergence(alpha: Float[Tensor, "*shape"], beta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(Beta(alpha, beta) || Beta(1, 1)), in nats."""
    whole = alpha + beta
    log_norm = torch.lgamma(whole) - torch.lgamma(alpha) - torch.lgamma(beta)
    return (
        log_norm
        + (alpha - 1) * (torch.digamma(alpha) - torch.digamma(whole))
        + (beta - 1) * (torch.digamma(beta) - torch.digamma(whole))
    )


def paired_cross_entropy(
    logit: Float[Tensor, "texts videos"], positives: Bool[Tensor, "texts videos"] | None = None
) -> Tensor:
    """Text k belongs to video k: mean of the cross entropy over videos for each text and over texts for each video.

    positives: pairs that are true as well. They are neither asked for nor held against anyone.
    """
    if positives is not None:
        others = positives & ~torch.eye(len(logit), dtype=torch.bool, device=logit.device)
        logit = logit.masked_fill(others, float("-inf"))
    target = torch.arange(len(logit), device=logit.device)
    return (F.cross_entropy(logit, target) + F.cross_entropy(logit.T, target)) / 2
