"""What a retrieval head sees in training: texts and the videos that they are about, text k with video k.

Every video is a fixed number of frame vectors, taken evenly over its whole length (data/retrieval/frames.py), not normalised.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.data.batch import moved
from qle.text.base import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalBatch:
    """Pairs. No video stands twice in a batch: the other videos are the negatives."""

    frames: Float[Tensor, "pairs frames dim"]
    queries: tuple[str, ...]
    """Distinct texts."""
    query_index: Int[Tensor, " pairs"]
    words: Words | None = None
    """Of `queries`. Such heads read sentences: where the words come with the batch, `states` may hold none."""
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
