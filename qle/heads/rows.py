"""The interface of heads that score every row of a video for a query, and the batch that such heads are trained on.

    RowBatch (windows of rows, and queries about them) -> forward -> HeadOutput -> loss               in training
    rows of a whole video, words -> read_rows -> RowReading -> refine -> RowScores                 everywhere else

`read_rows` looks at each row alone, in chunks of any size, and `refine` mixes over time once over the whole video: so a video of
any length is scored exactly as a short one. In training a window of rows is read once and asked several queries. Its tokens
therefore stand per window and its queries per (window, slot). The same text in many windows is encoded once: `queries` holds
each distinct text, and `query_index` points into it.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.heads.base import Head, moved
from qle.text.base import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """A batch of windows. Masks are True where something real stands."""

    streams: Mapping[str, Float[Tensor, "windows time *row"]]
    """Tokens as stored (float16, bfloat16 or float32); padding and rows that are not valid are zeros."""
    row_mask: Bool[Tensor, "windows time"]
    times_s: Float[Tensor, "windows time"]
    """float64 seconds from the beginning of the video."""
    queries: tuple[str, ...]
    """Distinct texts."""
    query_index: Int[Tensor, "windows slots"]
    """Which text is asked; 0 where the mask is False."""
    query_mask: Bool[Tensor, "windows slots"]
    words: Words | None = None
    """The encoded `queries`, put there by the loop, which owns the text encoder."""
    relevance: Float[Tensor, "windows slots time"] | None = None
    """1 where the query happens, 0 where it does not; fractions for saliency."""
    relevance_mask: Bool[Tensor, "windows slots time"] | None = None
    """False where it is not known (rows outside the mask, unlabelled rows): no loss there."""
    videos: tuple[str, ...] = ()
    """Key of each window's video."""
    first_rows: tuple[int, ...] = ()
    """Number of each window's first row among the chosen rows of its video."""

    def with_words(self, words: Words) -> "RowBatch":
        return replace(self, words=words)

    def to(self, device: torch.device) -> "RowBatch":
        """The same on a device."""
        return replace(self, **moved(self, device))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutput:
    """What a head says about (window, slot, time). Absent where the head has no such thing."""

    logit: Float[Tensor, "windows slots time"] | None = None
    """Final relevance logit."""
    raw_logit: Float[Tensor, "windows slots time"] | None = None
    """Before the temporal mixer; the mean of `relevance_map`."""
    relevance_map: Float[Tensor, "windows slots time rows cols"] | None = None
    """Signed, additive: its mean over rows and cols is `raw_logit`."""
    evidence: Float[Tensor, "windows slots time 2"] | None = None
    """Evidence for and against, >= 0."""
    presence_logit: Float[Tensor, "windows slots"] | None = None
    """Whether the query happens anywhere in the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReading:
    """Each row alone, for several queries."""

    features: Float[Tensor, "queries time dim"]
    raw_logit: Float[Tensor, "queries time"]
    relevance_map: Float[Tensor, "queries time rows cols"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScores:
    """Rows of a whole video after the temporal mixer."""

    logit: Float[Tensor, "queries time"]
    uncertainty: Float[Tensor, "queries time"] | None = None
    presence_logit: Float[Tensor, " queries"] | None = None
    """Whether the query happens anywhere in the video, before calibration."""


class RowHead(Head[RowBatch, HeadOutput]):
    """A head that scores rows. `forward` equals `read_rows` + `refine` on each window."""

    task: ClassVar[str] = "rows"

    @abstractmethod
    def read_rows(
        self, streams: Mapping[str, Float[Tensor, " time *row"]], words: Words, *, with_maps: bool = False
    ) -> RowReading:
        """Rows of one video for all of `words`: any chunking of the rows gives the same numbers."""

    @abstractmethod
    def refine(
        self,
        reading: RowReading,
        times_s: Float[Tensor, " time"],
        row_mask: Bool[Tensor, " time"],
    ) -> RowScores:
        """Over a whole video. Memory is linear in its length."""

    def loss_counts(self, batch: RowBatch) -> Mapping[str, Tensor]:
        """Terms are means over the entries of `relevance_mask` unless a head says otherwise."""
        if batch.relevance_mask is None:
            raise ValueError("a batch for training needs relevance and its mask")
        return {"*": batch.relevance_mask.sum()}
