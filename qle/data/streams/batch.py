"""What a moment head sees: items, each a window of clips of one video and one query about it.

    FeaturePack + annotations --gather--> MomentBatch --head--> MomentOutput

Spans are fractions of the window, 0 its beginning, 1 its end. Every distinct text stands once in `queries` (and is encoded
once); `query_index` points into it. Where the text encoder is frozen the words come with the batch, else the loop adds them.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.data.batch import moved
from qle.text.base import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentTargets:
    """What is true of the items. Drawn anew in every epoch where something is drawn."""

    spans: Float[Tensor, "targets 2"]
    """(centre, width) of all moments, item after item."""
    counts: tuple[int, ...]
    """Moments of each item. On the host: shapes depend on it."""
    relevant: Bool[Tensor, "items clips"]
    """The clip lies in a moment."""
    saliency: Float[Tensor, "items clips"]
    """Graded relevance, 0..12 (three raters' 0..4 added up), 0 where irrelevant; 1 inside a moment where nobody rated."""
    better: Int[Tensor, "items pairs"]
    """Clips that must score above ..."""
    worse: Int[Tensor, "items pairs"]
    """... these, pair by pair."""
    pair_mask: Bool[Tensor, "items pairs"]
    """False where an item has no such pair (all clips, or none, are relevant)."""

    def to(self, device: torch.device) -> "MomentTargets":
        return replace(self, **moved(self, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentBatch:
    """A batch of items. Masks are True where something real stands; padding is zeros."""

    clips: Float[Tensor, "items clips dim"]
    """Features after the transform of the run (data/moments/features.py): normalised, joined, with temporal endpoints."""
    clip_mask: Bool[Tensor, "items clips"]
    queries: tuple[str, ...]
    """Distinct texts."""
    query_index: Int[Tensor, " items"]
    sources: Int[Tensor, " items"]
    """Number of the recording that the item's video is cut from: items of one source are never each other's negatives.
    Items of one source stand next to each other where the head asks for groups."""
    negative: Int[Tensor, " items"] | None = None
    """The item whose query serves as one that does not happen here; None at inference: no negative pass is made."""
    negative_mask: Bool[Tensor, " items"] | None = None
    """False where the batch has no true negative for the item."""
    words: Words | None = None
    """Of `queries`."""
    targets: MomentTargets | None = None
    videos: tuple[str, ...] = ()
    first_clips: tuple[int, ...] = ()
    """Number of each window's first clip in its video."""

    @property
    def num_items(self) -> int:
        return len(self.clips)

    def item_words(self) -> Words:
        """The words of each item."""
        if self.words is None:
            raise ValueError("the words of the batch are not set")
        return self.words.select(self.query_index)

    def with_words(self, words: Words) -> "MomentBatch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "MomentBatch":
        return replace(self, **moved(self, device))
