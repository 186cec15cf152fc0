"""The clips of a training's videos as they are packed: in their columns, in the type of the pack. No torch.

Everything that turns cached features into those of a batch is here, so that all placements give the same numbers.
"""

from collections.abc import Sequence

import numpy as np

from qle.data.moments.clip_grid import pooled
from qle.data.moments.features import StreamSet, endpoint_columns, place_streams
from qle.data.moments.items import seen_bounds


class ClipReader:
    """Reads clips of videos, which are numbers here. Columns of endpoints are left at zero: they belong to windows."""

    def __init__(self, streams: StreamSet, keys: Sequence[str]) -> None:
        self.recipe = streams.recipe
        self.endpoint_columns = endpoint_columns(streams.recipe)
        self.dtype = np.dtype(np.float16 if streams.is_float16 else np.float32)
        self._streams, self._keys = streams, tuple(keys)
        times = [streams.times(key) for key in keys]
        self._bounds = [seen_bounds(one.num_clips, streams.recipe) for one in times]
        self.edges_s = tuple(one.edges_s[bounds] for one, bounds in zip(times, self._bounds, strict=True))
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
    def num_bytes(self) -> int:
        """Of all clips of all videos."""
        return int(self.num_clips.sum()) * self.dim * self.dtype.itemsize

    @property
    def num_nonfinite(self) -> int:
        """Rows that were met so far and hold NaN or inf."""
        return sum(map(len, self._bad.values()))

    def read(self, video: int, first: int, stop: int, out: np.ndarray) -> np.ndarray:
        """Clips first .. stop - 1 into (clips, dim) `out`; (clips,) bool of those that may be used, the others are zeros."""
        bounds = self._bounds[video][first : stop + 1]
        clips = self._streams.clips(self._keys[video], int(bounds[0]), int(bounds[-1]))
        features, valid = clips.features, clips.valid
        if len(valid) > len(bounds) - 1:
            features, valid = pooled(features, valid, bounds - bounds[0])
        place_streams(out, features, self.recipe)
        for column in self.endpoint_columns:
            out[:, column : column + 2] = 0
        if clips.num_nonfinite:
            self._bad.setdefault(video, set()).update(clips.bad_rows.tolist())
        return valid
