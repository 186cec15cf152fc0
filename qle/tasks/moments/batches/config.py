"""Settings of `data.*` for heads that answer with spans."""

from dataclasses import dataclass
from typing import Literal, get_args

from qle.data.loading.plan import PlacementName
from qle.errors import ConfigError

LongVideos = Literal["windows", "truncate", "pool"]
SaliencySource = Literal["raters", "windows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentDataConfig:
    """Items, their labels, placement of the features."""

    clip_s: float | None = None
    """Seconds of a clip; none: every cached row is one, as imported features have them."""
    window_clips: int = 75
    """Clips of one window: the most that the head sees at once."""
    long_videos: LongVideos = "windows"
    """Videos with more clips. windows: a window is drawn anew in each epoch, and overlapping ones are merged when localizing.
    truncate: training does not see the rest (published for QVHighlights); videos are localized as with windows.
    pool: clips are averaged until they fit (published for MESM)."""
    empty_share: float = 0.2
    """The share of windows of longer videos, in [0, 1], that lie anywhere; the others hold a moment of the item.
    Most windows of a long video hold none, and a head that has never seen one finds something in each."""
    max_moments: int = 5
    """Most moments of an item in training; where there are more, some are drawn."""
    items_per_batch: int = 32
    """Items of one batch of all processes together."""
    by_source: bool = False
    """Batches are made of whole recordings, their queries side by side, `items_per_batch` at most (MESM)."""
    queries_per_source: int = 10
    """With by_source: most queries of one recording in a batch; of more, some are drawn."""
    source_pattern: str = r"_\d+(?:\.\d+)?_\d+(?:\.\d+)?$"
    """What is taken off a video's name to get that of the recording it is cut from (times at the end, as in QVHighlights)."""
    saliency: SaliencySource = "raters"
    """Where graded relevance comes from: raters where there are any, else windows; or windows always."""
    num_pairs: int = 2
    """Pairs of clips, one inside and one outside, for the margin loss: the first from the extremes of the raters."""
    has_negatives: bool = True
    """Each item also gets the query of another item as one that does not happen in it."""
    placement: PlacementName = "auto"
    """Where the features lie: packed in device memory, packed in RAM, packed in a mapped file, or read as they are needed."""
    prefetch_batches: int = 2
    """Batches that are made ready while one is worked on (mapped and streamed)."""

    def __post_init__(self) -> None:
        counts = (
            "window_clips", "max_moments", "items_per_batch", "queries_per_source", "num_pairs", "prefetch_batches",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} = {getattr(self, name)}: expected 1 or more")
        if not 0 <= self.empty_share <= 1:
            raise ConfigError(f"data.empty_share = {self.empty_share}: expected a share, 0 to 1")
        if self.clip_s is not None and not 0 < self.clip_s < float("inf"):
            raise ConfigError(f"data.clip_s = {self.clip_s}: expected seconds, above 0")
        for name, kind in (("long_videos", LongVideos), ("saliency", SaliencySource), ("placement", PlacementName)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"data.{name} = {getattr(self, name)!r}: choose one of {', '.join(map(str, get_args(kind)))}"
                )
