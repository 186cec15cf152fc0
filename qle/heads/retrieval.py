"""The interface of heads that rank videos for a text, and the batch that they are trained on: text k belongs to video k.

Every video is a fixed number of frame vectors, taken evenly over its whole length and not normalised.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.heads.base import Head, Losses, moved
from qle.text.base import Words

FRAMES = "frames"
"""Name under which `TokenShapes.streams` tells such heads how wide a frame vector is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalBatch:
    """Pairs. No video stands twice in a batch: the other videos are the negatives."""

    frames: Float[Tensor, "pairs frames dim"]
    queries: tuple[str, ...]
    """Distinct texts."""
    query_index: Int[Tensor, " pairs"]
    words: Words | None = None
    """The encoded `queries`. Such heads read sentences: where the words come with the batch, `states` may hold none."""
    positives: Bool[Tensor, "pairs pairs"] | None = None
    """Text k is known to be true of video j: no negative, though it is not the pair that is asked for. None: of k = j only."""
    videos: tuple[str, ...] = ()

    @property
    def num_items(self) -> int:
        return len(self.frames)

    def with_words(self, words: Words) -> "RetrievalBatch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "RetrievalBatch":
        return replace(self, **moved(self, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOutput:
    """Similarities of a training batch, text k with video k on the diagonal."""

    similarity: Float[Tensor, "texts videos"]
    support: Float[Tensor, "texts videos"] | None = None
    """The same of the support texts, where the head has them."""


class RetrievalHead(Head[RetrievalBatch, RetrievalOutput]):
    """A final class implements the four methods."""

    task: ClassVar[str] = "retrieval"
    streams = (FRAMES,)
    num_frames: int
    """Frames of a video that it reads; the caller takes them evenly over its length."""

    @abstractmethod
    def forward(self, batch: RetrievalBatch) -> RetrievalOutput:
        """`batch.words` must be set."""

    @abstractmethod
    def loss(self, output: RetrievalOutput, batch: RetrievalBatch) -> Losses: ...

    @abstractmethod
    def similarity(self, words: Words, frames: Float[Tensor, "videos frames dim"]) -> Float[Tensor, "texts videos"]:
        """Every text with every video, each pair by itself: no other text and no other video changes it. Deterministic."""

    @abstractmethod
    def coarse(self, words: Words) -> Float[Tensor, "texts dim"]:
        """Unit vectors whose product with the unit mean frame vector of a video ranks videos roughly, for a shortlist."""

    @abstractmethod
    def coarse_frames(self, mean_frame: Float[Tensor, "videos dim"]) -> Float[Tensor, "videos dim"]:
        """The unit vectors of videos that `coarse` is compared with."""

    def loss_counts(self, batch: RetrievalBatch) -> Mapping[str, Tensor]:
        return {"*": torch.tensor(batch.num_items, device=batch.frames.device)}
