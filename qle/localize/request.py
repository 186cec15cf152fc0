"""What `qle localize` is asked, and what it answers with. No torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qle.errors import ConfigError
from qle.types import Prediction, Query

NUM_FRAMES = 6
"""Pictures of a query in a video."""
MEMORY_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizeRequest:
    """What to look for, where, with which run."""

    checkpoint: Path
    """Folder of a run."""
    queries: tuple[Query, ...]
    cache: Path | None = None
    video_ids: tuple[str, ...] = ()
    """Cached videos by key or a part of it; none: all of the space."""
    videos: tuple[str, ...] = ()
    """Files, folders, globs or manifests instead: videos that need not be cached."""
    root: Path | None = None
    """What keys of `videos` are relative to."""
    weights: tuple[str, ...] = ()
    """File or folder of the run's backbone, where videos must be extracted and it has none built in. One for all spaces of
    the run, or one for each, in its order."""
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    top: int | None = None
    """Most moments of a query in a video; None: all."""
    min_score: float = 0.0
    """Moments below this are left out."""
    keeps_all: bool = False
    """Every span that a moment head ranks, as evaluators want them. Else of spans that overlap heavily the best is kept, and
    none below the threshold of the run. Heads that score rows give no such spans."""
    heatmaps: Path | None = None
    """Folder for pictures of the best frames."""
    report: Path | None = None
    out: Path | None = None
    """Where the caller will write the moments: refused where that is one of the videos."""
    num_frames: int = NUM_FRAMES
    memory_bytes: int = MEMORY_BYTES
    allow_missing: bool = False
    """Queries about a video that is not there are skipped instead of being an error."""
    is_one_video: bool = False
    """What is wanted belongs to one film (subtitles): more of them are refused before any work."""

    @property
    def has_pictures(self) -> bool:
        """Whether answers are explained and shown in pictures."""
        return self.report is not None or self.heatmaps is not None

    def __post_init__(self) -> None:
        if not self.queries:
            raise ConfigError('nothing to look for: pass --query "..." or --queries FILE')
        if not self.videos and self.cache is None:
            raise ConfigError("nowhere to look: pass --cache FOLDER (videos that are extracted) or --video FILE")
        if self.videos and self.video_ids:
            raise ConfigError("--video-id chooses among cached videos and --video names files: pass one of the two")
        if self.top is not None and self.top < 1:
            raise ConfigError(f"--top {self.top}: expected 1 or more")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"--min-score {self.min_score}: expected 0 to 1, scores are probabilities")
        if self.num_frames < 1:
            raise ConfigError(f"--frames {self.num_frames}: expected 1 or more")


@dataclass(slots=True, kw_only=True)
class LocalizeResult:
    """What was found."""

    provenance: dict[str, Any]
    """What the numbers come from; no dates, so that equal runs give equal files."""
    predictions: list[Prediction] = field(default_factory=list)
    """In the order of the queries, then of the videos."""
    names: dict[str, str] = field(default_factory=dict)
    """Key -> what the query file calls the video."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> why it could not be searched."""
    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Queries about videos that are not there."""

    @property
    def exit_code(self) -> int:
        """As everywhere: 4 when some of the videos failed or are not there."""
        return 4 if self.failures or self.skipped else 0
