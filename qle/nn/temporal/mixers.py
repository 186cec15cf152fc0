"""Temporal mixers by name: (features, times_s, mask) -> features, whatever is inside."""

from typing import Literal

from torch import nn

from qle.nn.temporal.ssm import SsmMixer
from qle.nn.temporal.ssm_published import PublishedSsmMixer
from qle.nn.temporal.transformer import TemporalTransformer

MixerKind = Literal["transformer", "ssm", "scores", "none", "published", "published-ssm"]


def build_mixer(
    kind: MixerKind,
    dim: int,
    *,
    num_layers: int,
    num_heads: int,
    hidden: int,
    dropout: float,
    reach: int,
    state_dim: int,
) -> nn.Module | None:
    """Each takes what it knows of the sizes; `scores` is the transformer, over raw logits instead of features."""
    if kind == "none":
        return None
    if kind == "ssm":
        return SsmMixer(dim, num_layers=num_layers, num_heads=num_heads, state_dim=state_dim, dropout=dropout)
    if kind == "published-ssm":
        return PublishedSsmMixer(dim, num_layers=num_layers)
    is_published = kind == "published"
    return TemporalTransformer(
        dim,
        num_layers=num_layers,
        num_heads=num_heads,
        hidden=hidden,
        dropout=dropout,
        reach=None if is_published else reach,
        knows_order=not is_published,
    )
