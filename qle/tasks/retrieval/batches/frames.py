"""A few frame vectors stand for a whole video: which rows of the cache these are, and reading those of many videos. No torch.

    space + stream -> FrameSource -> frames(keys) -> (videos, frames, dim) float32, as stored: not scaled, not centred

The video is cut into equal parts of time, and each part gives the row that is shown in its middle. So a video with holes, a
variable frame rate or fewer rows than parts needs no special case (a row then stands twice), and the rate of the space does
not matter. Rows that were not on screen are passed over. Of a `patch` stream the mean over the map is taken.
"""

from collections.abc import Sequence

import numpy as np

from qle.cache.reader import Cache, Space, Video
from qle.data.annotations import Annotation
from qle.data.lookup import match_keys
from qle.data.rows import RowChoice, choose_rows
from qle.data.streams.opening import part_of, width
from qle.data.streams.recipe import FeaturePart, FeatureRecipe, StreamChoice
from qle.errors import CacheCorruptError, CacheMismatchError, ConfigError

KEEP_BYTES = 256 << 20
"""Some 20,000 videos of 12 frames of CLIP."""
EDGE_S = 1e-6
RUN_BYTES = 1 << 20
"""Up to so much, one read of all rows between the first and the last costs less than one of each."""


class FrameSource:
    """Frames of the videos of one space. Read once, kept in memory while there is room."""

    def __init__(self, space: Space, stream: str, num_frames: int, *, keep_bytes: int = KEEP_BYTES) -> None:
        if num_frames < 1:
            raise ConfigError(f"num_frames = {num_frames}: expected 1 or more frames of a video")
        self.space, self.stream, self.num_frames = space, stream, num_frames
        self.dim = width(space, stream)
        self._is_map = len(space.streams[stream].row_shape) == 3
        self._is_float16 = space.streams[stream].dtype == "float16" and not self._is_map
        self._room = keep_bytes
        self._kept: dict[str, np.ndarray] = {}
        self._nonfinite: dict[str, int] = {}

    @classmethod
    def open(cls, cache: Cache, choice: StreamChoice, num_frames: int) -> "FrameSource":
        """The stream that a user names: `frame` where the space has it, else the mean of `patch`."""
        if choice.has_endpoints:
            raise ConfigError(
                "--stream ...+tef: endpoints belong to clips; heads that rank videos read frames without them"
            )
        space = cache.space(choice.space)
        return cls(space, part_of(space, choice).stream, num_frames)

    @classmethod
    def from_recipe(cls, cache: Cache, recipe: FeatureRecipe) -> "FrameSource":
        """The same frames over this cache. CacheMismatchError where the space of the recipe is not there."""
        (part,) = recipe.parts
        for name in cache.spaces:
            space = cache.space(name)
            if space.record.hash == part.space:
                return cls(space, part.stream, recipe.window_clips)
        raise CacheMismatchError(
            f"{cache.path} has no space {part.space[:12]}, from which the run has its stream {part.stream!r}\n"
            f"it has {', '.join(cache.spaces) or 'none'}; extract or import the features that the run was trained on"
        )

    @property
    def recipe(self) -> FeatureRecipe:
        """For the record of a run: one part, as it is stored; `window_clips` frames of a video."""
        part = FeaturePart(
            space=self.space.record.hash, stream=self.stream, dim=self.dim, has_endpoints=False, is_normalised=False
        )
        return FeatureRecipe(parts=(part,), window_clips=self.num_frames, long_videos="pool")

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.space.path.name}:{self.stream}"

    @property
    def dtype(self) -> np.dtype:
        """In which the frames lose nothing."""
        return np.dtype(np.float16 if self._is_float16 else np.float32)

    @property
    def num_nonfinite_rows(self) -> int:
        """How many of the rows read so far hold NaN or inf; their neighbours stand for them."""
        return sum(self._nonfinite.values())

    def match(
        self, annotations: Sequence[Annotation], *, allow_missing: bool = False
    ) -> tuple[dict[str, list[Annotation]], list[str]]:
        """As data/lookup.match_videos, but windows may lie anywhere: what is asked is whether, not when."""
        return match_keys(
            self.space.keys(), self.space.path, annotations, lambda key: (np.inf, 0.0), allow_missing=allow_missing
        )

    def frames(self, keys: Sequence[str]) -> np.ndarray:
        """(videos, frames, dim) float32, in the order of the keys."""
        frames = np.empty((len(keys), self.num_frames, self.dim), dtype=np.float32)
        for number, key in enumerate(keys):
            frames[number] = self._of(key)
        return frames

    def rows(self, key: str) -> np.ndarray:
        """(frames,) int64: numbers of the cached rows that stand for the video, non-decreasing."""
        return middle_rows(choose_rows(self.space.video(key), None), self.num_frames)

    def _of(self, key: str) -> np.ndarray:
        kept = self._kept.get(key)
        if kept is None:
            kept = self._read(self.space.video(key))
            if kept.nbytes <= self._room:
                self._room -= kept.nbytes
                self._kept[key] = kept
        return kept

    def _read(self, video: Video) -> np.ndarray:
        rows, row_of_frame = np.unique(middle_rows(choose_rows(video, None), self.num_frames), return_inverse=True)
        stored, first = video.stored(self.stream), int(rows[0])
        if (int(rows[-1]) + 1 - first) * stored.stream.row_bytes <= RUN_BYTES:
            values = stored.read(first, int(rows[-1]) + 1)[rows - first]
        else:
            values = video.rows_of(self.stream)[rows]
        if self._is_map:
            values = values.astype(np.float32, copy=False).mean(axis=(1, 2))
        is_finite = np.isfinite(values).all(axis=1)
        if not is_finite.all():
            self._nonfinite[video.key] = int((~is_finite).sum())
            values = values[_nearest(is_finite, video)]
        frames: np.ndarray = values.astype(self.dtype, copy=False)[row_of_frame]
        return frames


def middle_rows(choice: RowChoice, num_frames: int) -> np.ndarray:
    """(frames,) int64 cached rows: of each of `num_frames` equal parts of the video the row that stands for its middle, or the
    nearest one that was on screen. Where none was, all count."""
    usable = np.flatnonzero(choice.valid) if choice.valid.any() else np.arange(choice.num_rows)
    start_s, end_s = choice.edges_s[usable], choice.edges_s[usable + 1]
    middle_s = (np.arange(num_frames) + 0.5) * (choice.duration_s / num_frames)
    # Where a middle lies on the edge of two rows it is the earlier one's: as many rows as parts are then all taken once.
    before = np.maximum(np.searchsorted(start_s, middle_s - EDGE_S, side="right") - 1, 0)
    after = np.minimum(before + 1, len(usable) - 1)
    is_after = np.abs(start_s[after] - middle_s) < np.maximum(middle_s - end_s[before], 0.0)
    rows: np.ndarray = choice.index[usable[np.where(is_after, after, before)]]
    return rows


def _nearest(is_good: np.ndarray, video: Video) -> np.ndarray:
    """For each row the nearest good one."""
    good = np.flatnonzero(is_good)
    if not len(good):
        raise CacheCorruptError(
            f"video {video.key!r}: none of its {len(is_good)} sampled rows is finite ({video.folder})\n"
            "extract it again; qle cache verify --deep finds files that differ from what was written"
        )
    return np.asarray(good[np.abs(np.arange(len(is_good))[:, None] - good).argmin(axis=1)])
