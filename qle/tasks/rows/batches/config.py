"""Settings of `data.*`: which windows of which rows are read, what they are asked, and where the tokens lie meanwhile."""

from dataclasses import dataclass
from typing import Literal, get_args

from qle.data.loading.plan import PlacementName
from qle.data.negatives import NegativeSource
from qle.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Windows, their queries, augmentation, placement."""

    rate_fps: float | None = None
    """Rows a second, at training and later at localization; none: every cached row."""
    window_rows: int = 16
    """Rows of a window: what a temporal mixer sees at once in training. Shorter videos are padded."""
    windows_per_batch: int = 8
    """Windows of one batch of all processes together; each process takes an equal part."""
    queries_per_window: int = 6
    """Queries that one window is asked; what happens in it first, then what does not."""
    negatives: tuple[str, ...] = ("window", "absent")
    """Where queries that do not happen come from: window (elsewhere in the video), absent (labelled as absent from it),
    corpus (asked of other videos only: for data in which everything that happens is labelled), similar (those of corpus that
    share a word with what happens in the window)."""
    labels: Literal["windows", "saliency"] = "windows"
    """windows: a row is relevant (1) or not (0). saliency: as relevant as raters found it, where they rated it."""
    saliency_max: float = 4.0
    """The highest score of a rater, which becomes relevance 1."""
    time_jitter: bool = True
    """Windows begin at other rows in each epoch."""
    positive_share: float = 0.0
    """Share of windows in [0, 1) that are drawn around events, beside those that cover every video once."""
    flip: float = 0.0
    """Probability that a window's map is mirrored, for left-right and for up-down; side words in its queries change along."""
    token_dropout: float = 0.0
    """Share of patch tokens in [0, 1) that are zeroed, each by itself."""
    placement: PlacementName = "auto"
    """Where the tokens lie during training: in device memory, packed in RAM, in mapped files, or streamed from disk by
    processes. All give the same batches; auto takes the first that fits."""
    num_workers: int = 4
    """Processes that read ahead, with placement streamed only."""
    prefetch_batches: int = 2
    """Batches that are made ready while one is worked on."""

    def __post_init__(self) -> None:
        counts = ("window_rows", "windows_per_batch", "queries_per_window", "num_workers", "prefetch_batches")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} = {getattr(self, name)}: expected 1 or more")
        for name in ("positive_share", "token_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"data.{name} = {getattr(self, name)}: expected a share, 0 or more and below 1")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"data.flip = {self.flip}: expected a probability in 0..1")
        if self.rate_fps is not None and not 0 < self.rate_fps < float("inf"):
            raise ConfigError(f"data.rate_fps = {self.rate_fps}: expected rows a second, above 0")
        if not self.saliency_max > 0:
            raise ConfigError(f"data.saliency_max = {self.saliency_max}: expected a score above 0")
        if unknown := set(self.negatives) - set(get_args(NegativeSource)):
            raise ConfigError(
                f"data.negatives names {sorted(unknown)[0]!r}: choose among {', '.join(get_args(NegativeSource))}"
            )
