"""Settings of `data.*` for heads that rank videos."""

from dataclasses import dataclass
from typing import get_args

from qle.data.loading.plan import PlacementName
from qle.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalDataConfig:
    """Pairs of text and video, placement of the frames. How many frames a video has is the head's business."""

    pairs_per_batch: int = 32
    """Pairs of one batch, no video twice; every process has the whole batch, since all pairs are compared with each other.
    With fewer videos, all of them."""
    captions_per_video: int = 1
    """How often each video comes in an epoch, each time with another of its captions, drawn anew. (Published code takes all
    captions: 20 for MSR-VTT.)"""
    placement: PlacementName = "auto"
    """Where the frames lie: packed in device memory, packed in RAM, or read as they are needed (mapped, streamed: the same)."""
    prefetch_batches: int = 2
    """Batches that are made ready while one is worked on (mapped, streamed)."""

    def __post_init__(self) -> None:
        if self.pairs_per_batch < 2:
            raise ConfigError(f"data.pairs_per_batch = {self.pairs_per_batch}: expected 2 or more, to be told apart")
        for name in ("captions_per_video", "prefetch_batches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} = {getattr(self, name)}: expected 1 or more")
        if self.placement not in get_args(PlacementName):
            raise ConfigError(
                f"data.placement = {self.placement!r}: choose one of {', '.join(get_args(PlacementName))}"
            )
