"""The clips of a training's videos as they are packed, every stream in its columns. No torch.

Temporal endpoints belong to windows. Of a video that fits into one they are there from the beginning; those of windows of
longer ones are set when a batch is gathered (`endpoint_values`).

Everything that turns cached features into those of a batch is here, so that all placements give the same numbers.
"""

from collections.abc import Sequence

import numpy as np

from qle.data.streams.clip_grid import pooled
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import NUM_ENDPOINTS
from qle.data.streams.windows import endpoint_columns, endpoints, fill_streams
from qle.tasks.moments.batches.items import seen_bounds


class ClipReader:
    """Reads clips of videos, which are numbers here."""

    def __init__(self, streams: StreamSet, keys: Sequence[str]) -> None:
        self.recipe = streams.recipe
        self.endpoint_columns = endpoint_columns(streams.recipe)
        self.dtype = np.dtype(np.float16 if streams.is_float16 else np.float32)
        self._streams, self._keys = streams, tuple(keys)
        times = [streams.times(key) for key in keys]
        self._bounds = [seen_bounds(clip_times.num_clips, streams.recipe) for clip_times in times]
        self.edges_s = tuple(clip_times.edges_s[bounds] for clip_times, bounds in zip(times, self._bounds, strict=True))
        """(clips + 1,) float64 of each video, as far as it is seen."""
        self._bad: dict[int, set[int]] = {}

    @property
    def dim(self) -> int:
        return self.recipe.dim

    @property
    def num_clips(self) -> np.ndarray:
        """(videos,) int64"""
        return np.array([len(bounds) - 1 for bounds in self._bounds], dtype=np.int64)

    @property
    def is_long(self) -> np.ndarray:
        """(videos,) bool: it does not fit into a window."""
        return self.num_clips > self.recipe.window_clips

    @property
    def num_bytes(self) -> int:
        """Bytes of all clips of all videos."""
        return int(self.num_clips.sum()) * self.dim * self.dtype.itemsize

    @property
    def num_nonfinite(self) -> int:
        """Rows that were met so far and hold NaN or inf."""
        return sum(map(len, self._bad.values()))

    def read(self, video: int, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Clips first .. stop - 1 as (clips, dim) float32, and (clips,) bool of those that may be used, the others are
        zeros."""
        bounds = self._bounds[video][first : stop + 1]
        clips = self._streams.clips(self._keys[video], int(bounds[0]), int(bounds[-1]))
        features, valid = clips.features, clips.valid
        if len(valid) > len(bounds) - 1:
            features, valid = pooled(features, valid, bounds - bounds[0])
        out = np.empty((len(valid), self.dim), dtype=np.float32)
        fill_streams(out, features, self.recipe)
        count = len(self._bounds[video]) - 1
        ends = endpoints(count)[first:stop] * valid[:, None] if count <= self.recipe.window_clips else 0
        for column in self.endpoint_columns:
            out[:, column : column + NUM_ENDPOINTS] = ends
        if clips.num_nonfinite:
            self._bad.setdefault(video, set()).update(clips.bad_rows.tolist())
        return out, valid
