"""Every frame of a video is compared with the sentence of a query."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from qle.heads.base import Head, Losses, TokenShapes, moved
from qle.text.base import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyBatch:
    """Pairs of a whole video and a query about it."""

    frames: Tensor
    """(pairs, frames, dim)"""
    mask: Tensor
    """(pairs, frames) bool: False is padding."""
    inside: Tensor
    """(pairs, frames) bool: the frame lies in a window."""
    queries: tuple[str, ...]
    words: Words | None = None

    def with_words(self, words: Words) -> "ToyBatch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "ToyBatch":
        return replace(self, **moved(self, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOutput:
    logit: Tensor
    """(pairs, frames)"""


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    dim: int = 16


class ToyHead(Head[ToyBatch, ToyOutput]):
    name: ClassVar[str] = "toy"
    task: ClassVar[str] = "toy"
    Config: ClassVar[type] = ToyConfig
    streams = ("frame",)

    def __init__(self, config: ToyConfig, shapes: TokenShapes) -> None:
        super().__init__()
        self.config = config
        self.frames = nn.Linear(shapes.streams["frame"][0], config.dim)
        self.sentence = nn.Linear(shapes.sentence_dim, config.dim)

    def forward(self, batch: ToyBatch) -> ToyOutput:
        assert batch.words is not None
        return ToyOutput(logit=self.score(batch.frames, batch.words.sentence).masked_fill(~batch.mask, -1e4))

    def score(self, frames: Tensor, sentence: Tensor) -> Tensor:
        """(pairs, frames): frames are (pairs, frames, dim), sentences (pairs, dim)."""
        return torch.einsum("pfd,pd->pf", self.frames(frames), self.sentence(sentence))

    def loss(self, output: ToyOutput, batch: ToyBatch) -> Losses:
        """The frames inside are to win over all others."""
        inside = torch.logsumexp(output.logit.masked_fill(~batch.inside, -1e4), dim=1)
        value = (torch.logsumexp(output.logit, dim=1) - inside).mean()
        return Losses(total=value, terms={"choice": value})

    def loss_counts(self, batch: ToyBatch) -> Mapping[str, Tensor]:
        return {"*": torch.tensor(len(batch.queries))}
