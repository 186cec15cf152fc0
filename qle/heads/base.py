"""The interface of heads: `forward(batch) -> HeadOutput`, `loss(output, batch) -> Losses`, and a config.

A head that scores rows (`RowHead`) works in two steps, so that a video of any length is scored exactly as a short one:
`read_rows` looks at each row alone, in chunks of any size, and `refine` mixes over time once over the whole video.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.heads.rows import Batch
from qle.text.base import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShapes:
    """What comes in: fixed by the space and the text encoder, not by the user."""

    streams: Mapping[str, tuple[int, ...]]
    """Row shape of every stream of the space, e.g. {"patch": (14, 14, 768), "frame": (768,)}."""
    text_dim: int
    sentence_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutput:
    """What a head says about (window, place, time). Absent where the head has no such thing."""

    logit: Float[Tensor, "windows places time"] | None = None
    """Final relevance logit."""
    raw_logit: Float[Tensor, "windows places time"] | None = None
    """Before the temporal mixer; the mean of `relevance_map`."""
    relevance_map: Float[Tensor, "windows places time rows cols"] | None = None
    """Signed, additive: its mean over rows and cols is `raw_logit`."""
    evidence: Float[Tensor, "windows places time 2"] | None = None
    """Evidence for and against, >= 0."""
    presence_logit: Float[Tensor, "windows places"] | None = None
    """Whether the query happens anywhere in the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Scalars with their graph: `total` is what is minimised, `terms` are its parts after weighting (for the log)."""

    total: Tensor
    terms: Mapping[str, Tensor]


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


BatchT = TypeVar("BatchT")
OutputT = TypeVar("OutputT")


class Head(nn.Module, ABC, Generic[BatchT, OutputT]):
    """A trainable module over cached tokens."""

    name: ClassVar[str]
    """Its key in HEADS."""
    task: ClassVar[str]
    """What it is for, which decides what it is fed with and how it is validated: rows, moments or retrieval."""
    Config: ClassVar[type]
    """Frozen dataclass, keyword only, ranges checked in __post_init__."""
    config: Any
    streams: tuple[str, ...]
    """Names of the streams that it reads."""

    @abstractmethod
    def forward(self, batch: BatchT) -> OutputT:
        """`batch.words` must be set."""

    @abstractmethod
    def loss(self, output: OutputT, batch: BatchT) -> Losses:
        """Means over what the masks of the batch allow."""

    @abstractmethod
    def loss_counts(self, batch: BatchT) -> Mapping[str, Tensor]:
        """Over how many entries each term of the loss is a mean; "*" for all that are not named. The parts of a batch, in
        several passes or on several devices, then add up to exactly the loss of the whole."""


class RowHead(Head[Batch, HeadOutput]):
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

    def loss_counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Terms are means over the entries of `relevance_mask` unless a head says otherwise."""
        if batch.relevance_mask is None:
            raise ValueError("a batch for training needs relevance and its mask")
        return {"*": batch.relevance_mask.sum()}
