"""What a retrieval head sees in training: texts and the videos that they are about, text k with video k.

Every video is a fixed number of frame vectors, taken evenly over its whole length (data/retrieval/frames.py), not normalised.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
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
    """Of `queries`."""
    videos: tuple[str, ...] = ()

    @property
    def num_items(self) -> int:
        return len(self.frames)

    def with_words(self, words: Words) -> "RetrievalBatch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "RetrievalBatch":
        return replace(self, **moved(self, device))
