"""What `qle search` is asked, and what it answers with. No torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qle.errors import ConfigError
from qle.types import Query

TOP_VIDEOS, TOP, SHORTLIST = 20, 10, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What to look for, with which runs."""

    cache: Path
    queries: tuple[Query, ...]
    """A video that one names is not looked at: the whole corpus is asked."""
    retriever: Path
    """Run of a head that ranks videos; the videos of its space are the corpus."""
    localizer: Path | None = None
    """Run that finds moments; None: videos are ranked, and that is all."""
    top_videos: int = TOP_VIDEOS
    """In which moments are looked for."""
    top: int = TOP
    """Most results of a query: moments, or videos without a localizer."""
    shortlist: int = SHORTLIST
    """Videos whose similarity is taken exactly."""
    fusion: Path | None = None
    """Weights that qle eval --protocol corpus --fit wrote."""
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.queries:
            raise ConfigError('nothing to look for: pass --query "..." or --queries FILE')
        check_depths(top_videos=self.top_videos, shortlist=self.shortlist, top=self.top)
        if self.fusion is not None and self.localizer is None:
            raise ConfigError("--fusion weighs videos against moments: pass --localizer RUN as well")


def check_depths(**depths: int) -> None:
    """ConfigError for one below 1, or a shortlist that is shorter than what is taken from it."""
    for name, depth in depths.items():
        if depth < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {depth}: expected 1 or more")
    if depths["shortlist"] < depths["top_videos"]:
        raise ConfigError(
            f"--shortlist {depths['shortlist']}: shorter than --top-videos {depths['top_videos']}, which are taken from it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHit:
    """One of the best videos."""

    video: str
    rank: int
    """From 1."""
    similarity: float
    """As the retriever says: a cosine, in -1..1."""
    share: float
    """Its part of the softmax over the shortlist, in 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentHit:
    """One of the best moments of the corpus."""

    video: VideoHit
    start_s: float
    end_s: float
    score: float
    """share ** lambda * probability ** (1 - lambda), in 0..1 (fusion.py)."""
    probability: float
    """As the localizer says."""
    presence: float
    """That the query happens in this video at all."""
    duration_s: float
    """Length of the video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What is found for one query."""

    query: Query
    videos: tuple[VideoHit, ...]
    """Best first: those that were localized in, or without a localizer the result."""
    moments: tuple[MomentHit, ...] = ()
    """Best first."""


@dataclass(slots=True, kw_only=True)
class SearchResult:
    """What was found."""

    provenance: dict[str, Any]
    num_videos: int
    """Videos in the corpus."""
    has_moments: bool
    searched: list[Searched] = field(default_factory=list)
    """What was found for each query, in their order."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> why it could not be searched."""
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """As everywhere: 4 where some of the videos failed."""
        return 4 if self.failures else 0
