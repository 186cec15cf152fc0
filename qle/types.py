"""The values that pass between stages: plain frozen data, numpy only.

    video -> VideoInfo -> FrameBlock -> tokens -> CommitRecord (cache) -> ...

Words. *row*: one sampled moment of a video, the unit of every stream. *frame*: one picture in the file. *stream*: one
named array with a row axis (`patch`, `frame`, `clip`). *space*: everything that defines what a number in a stream means.
Times are float64 seconds on the container's own clock; they travel with the rows and are never rebuilt from indices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

StoreDtype = Literal["float16", "bfloat16", "float32", "int8"]
StoreKind = Literal["zarr", "hdf5"]


OnProgress = Callable[[int, int, str], None]
"""Called as long work goes on: how much is done, of how much, and what is being worked on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stored array: `(rows, *row_shape)`."""

    name: str
    """`patch`, `frame`, `clip`; beside them every video has `pts`, `index`, `valid`, and `scale` where patches are int8."""
    row_shape: tuple[int, ...]
    """Shape of one row, e.g. (14, 14, 768)."""
    axes: tuple[str, ...]
    """Names of the axes of `row_shape`, e.g. ("rows", "cols", "dim")."""
    dtype: str
    """Logical dtype: float16, bfloat16, float32, int8, float64, int64 or bool. bfloat16 is stored as uint16."""

    @property
    def stored_dtype(self) -> np.dtype:
        """The numpy dtype of the bytes on disk."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.row_shape, dtype=np.int64)) * self.stored_dtype.itemsize


TIME_STREAMS: tuple[Stream, ...] = (
    Stream(name="pts", row_shape=(), axes=(), dtype="float64"),
    Stream(name="index", row_shape=(), axes=(), dtype="int64"),
    Stream(name="valid", row_shape=(), axes=(), dtype="bool"),
)
"""Written for every video: display time in seconds of the frame that the row describes, its number in display order, and
whether it was really on screen at the time that the row was sampled for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSpec:
    """What a number in the cache means. Equal `hashed` parts give the same space; `recorded` is for the reader only."""

    name: str
    """Readable part of the folder name, e.g. "m2crl-1fps-float16"."""
    hashed: Mapping[str, Any]
    """backbone (id, architecture, weights digest, layer), preprocess, sampling, context, streams, dtype, grid."""
    streams: tuple[Stream, ...]
    """Token streams in the order in which they are stored (without TIME_STREAMS)."""
    recorded: Mapping[str, Any]
    """Device, decoder, library versions: kept, not hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """One entry of the work list."""

    key: str
    """Identity in the cache: path relative to the root that the user named, with "/" between parts."""
    path: Path
    start_s: float | None = None
    """Only from here (container time), for manifests that list clips."""
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFingerprint:
    """Which bytes a video was extracted from. Equal size and mtime, or else equal size and edge hash, mean the same file."""

    size: int
    mtime_ns: int
    edge_hash: str
    """xxh3-128 of the first and last MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a probe knows before a pixel is decoded. All frames that a player would show, in display order."""

    path: Path
    fingerprint: SourceFingerprint
    codec: str
    pixel_format: str
    width: int
    """Displayed width, after rotation."""
    height: int
    rotation: int
    """Degrees clockwise that turn the stored picture upright: 0, 90, 180 or 270."""
    time_base: Fraction
    pts_s: np.ndarray
    """(frames,) float64, strictly increasing: when each frame is shown."""
    is_key: np.ndarray
    """(frames,) bool: decoding may start here."""
    end_s: float
    """When the last frame leaves the screen."""
    has_edit_list: bool
    declared_frames: int
    """What the container's header claims, 0 where it is silent."""
    has_stamps: bool = True
    """False where frames do not carry their display time (raw streams, H.264 in AVI): they are counted from the beginning."""
    frames_expected: int | None = None
    """How many frames a file that broke off should have; None for a whole one."""

    @property
    def num_frames(self) -> int:
        return len(self.pts_s)

    @property
    def start_s(self) -> float:
        return float(self.pts_s[0])

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def average_fps(self) -> float:
        return self.num_frames / self.duration_s if self.duration_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """Which frame of the file each row describes. Made by extract/sampling.py, nowhere else."""

    frame_index: np.ndarray
    """(rows,) int64: number of the frame in display order, non-decreasing."""
    pts_s: np.ndarray
    """(rows,) float64: that frame's display time."""
    is_valid: np.ndarray
    """(rows,) bool: the frame was on screen at the row's time, give or take half a source frame."""

    @property
    def num_rows(self) -> int:
        return len(self.frame_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipContext:
    """How rows are grouped for one forward pass. Part of the space: the same frame in another clip gives other numbers."""

    mode: Literal["single", "tile", "centre"]
    """single: each row alone. tile: clips end to end. centre: overlapping clips of which the middle rows are kept."""
    length: int
    """Rows in a clip."""
    step: int
    """Rows from the start of one clip to the start of the next."""

    @classmethod
    def of(cls, mode: Literal["single", "tile", "centre"], length: int) -> "ClipContext":
        """The context of that name for a model whose clips have `length` frames; `centre` overlaps by half."""
        if mode == "single":
            return cls(mode=mode, length=1, step=1)
        return cls(mode=mode, length=length, step=length if mode == "tile" else max(1, length // 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle of pixels: rows top..bottom-1, columns left..right-1."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """An answer in time. Seconds count from the beginning of the video (or of the clip that a manifest lists)."""

    start_s: float
    end_s: float
    score: float
    """Calibrated probability in [0, 1] that the query is happening during the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTrack:
    """What a head says about every row of a video for one query."""

    times_s: np.ndarray
    """(rows,) float64: when each row is shown, from the beginning of the video."""
    edges_s: np.ndarray
    """(rows + 1,) float64: row k stands for edges_s[k] .. edges_s[k + 1]; together they are the whole video."""
    valid: np.ndarray
    """(rows,) bool: the row's frame was really on screen then, and its tokens are finite."""
    logit: np.ndarray
    """(rows,) float32: the final (refined) logit, before calibration; of heads that answer with spans the saliency."""
    raw_logit: np.ndarray | None = None
    """(rows,) float32: the logit before the temporal mixer, the mean of the relevance map."""
    uncertainty: np.ndarray | None = None
    """(rows,) float32 in [0, 1], where the head has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Everything found for one query in one video."""

    video: str
    """Key in the cache."""
    query: str
    qid: str | None = None
    """The qid of the annotation or query file that asked, where there is one."""
    duration_s: float
    moments: tuple[Moment, ...]
    """Best first, inside the video. None overlap where they are cut from a track; heads that answer with spans may give several
    that do, of which people are shown one (ranked.py)."""
    presence: float
    """Calibrated probability in [0, 1] that the query happens anywhere in the video; 1 - presence is the "absent" score."""
    probability: np.ndarray | None = None
    """(rows,) float32 in [0, 1]: the calibrated track, from which moments were cut; of heads that answer with spans the
    saliency of clips."""
    track: ScoreTrack | None = None
    best: Moment | None = None
    """The first of the moments, or where there is none the best guess, which says nothing about presence. Official
    evaluators need an answer to every query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question."""

    text: str
    qid: str | None = None
    """Identity in the file that asked."""
    video: str | None = None
    """Key of the only video to ask, or a part of it that names one; None asks all."""
    where: str = field(default="", compare=False)
    """File and line, where it stands in one: errors name it."""

    def __str__(self) -> str:
        qid = "" if self.qid is None else f" (qid {self.qid})"
        return f"{self.where}: query {self.text!r}{qid}" if self.where else f"query {self.text!r}{qid}"
