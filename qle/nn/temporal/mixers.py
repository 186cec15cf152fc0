"""Temporal mixers by name: (features, times_s, mask) -> features, whatever is inside."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from qle.nn.temporal.ssm import SsmMixer
from qle.nn.temporal.ssm_published import PublishedSsmMixer
from qle.nn.temporal.transformer import TemporalTransformer

MixerKind = Literal["transformer", "ssm", "scores", "none", "published", "published-ssm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSizes:
    """Sizes of state space mixers; `kernel` and `expand` are constants of ours, and differ between published ones."""

    dim: int = 16
    kernel: int = 4
    expand: int = 2


def build_mixer(
    kind: MixerKind,
    dim: int,
    *,
    num_layers: int,
    num_heads: int,
    hidden: int,
    dropout: float,
    reach: int,
    state: StateSizes,
) -> nn.Module | None:
    """Each takes what it knows of the sizes; `scores` is the transformer, over raw logits instead of features."""
    if kind == "none":
        return None
    if kind == "ssm":
        return SsmMixer(dim, num_layers=num_layers, num_heads=num_heads, state_dim=state.dim, dropout=dropout)
    if kind == "published-ssm":
        return PublishedSsmMixer(
            dim, num_layers=num_layers, state_dim=state.dim, kernel=state.kernel, expand=state.expand
        )
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
