"""Clips of a video -> the windows that a head sees: which, averaged where they are too long, with temporal endpoints. No torch.

VideoClips -> windows_of -> window_of -> (clips, recipe.dim)
"""

from dataclasses import dataclass, field

import numpy as np

from qle.data.streams.clip_grid import pool_bounds, pooled
from qle.data.streams.recipe import NUM_ENDPOINTS, FeatureRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoClips:
    """All clips of one video."""

    features: np.ndarray
    """(clips, dim) float32: normalised and joined, without endpoints; zeros where not valid."""
    edges_s: np.ndarray
    """(clips + 1,) float64: clip k stands for edges_s[k] .. edges_s[k + 1]; together they are the whole video."""
    valid: np.ndarray
    """(clips,) bool: every stream has a row there that was on screen and holds finite numbers."""
    duration_s: float
    bad_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(bad,) int64: valid rows that hold NaN or inf; each its own number in the video and the streams."""

    @property
    def num_clips(self) -> int:
        return len(self.valid)

    @property
    def num_nonfinite(self) -> int:
        return len(self.bad_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowClips:
    """One window as the head sees it."""

    features: np.ndarray
    """(clips, recipe.dim) float32, with the endpoints of the window."""
    edges_s: np.ndarray
    """(clips + 1,)"""
    valid: np.ndarray


def windows_of(num_clips: int, recipe: FeatureRecipe) -> tuple[tuple[int, int], ...]:
    """(first, stop) of the windows in which a video is searched: one where it fits, else overlapping by half or more and evenly
    spread, or all of it at once, to be averaged ("pool"). What training truncates is searched in windows too: a head that
    saw windows of that length only is still asked about the whole video."""
    length = recipe.window_clips
    if num_clips <= length or recipe.long_videos == "pool":
        return ((0, num_clips),)
    count = 1 + -(-(num_clips - length) // max(1, length // 2))
    firsts = np.round(np.linspace(0, num_clips - length, count)).astype(np.int64).tolist()
    return tuple((first, first + length) for first in firsts)


def window_of(clips: VideoClips, first: int, stop: int, recipe: FeatureRecipe) -> WindowClips:
    """A window as the head sees it: averaged to `recipe.window_clips` where it has more, then with endpoints."""
    features, valid = clips.features[first:stop], clips.valid[first:stop]
    edges_s = clips.edges_s[first : stop + 1]
    if stop - first > recipe.window_clips:
        bounds = pool_bounds(stop - first, recipe.window_clips)
        features, valid = pooled(features, valid, bounds)
        edges_s = edges_s[bounds]
    joined = np.empty((len(valid), recipe.dim), dtype=np.float32)
    fill_streams(joined, features, recipe)
    fill_endpoints(joined, recipe)
    joined[~valid] = 0
    return WindowClips(features=joined, edges_s=edges_s, valid=valid)


def window_features(clips: VideoClips, first: int, stop: int, recipe: FeatureRecipe) -> np.ndarray:
    """(clips, recipe.dim) float32: the features of `window_of`."""
    return window_of(clips, first, stop, recipe).features


def fill_streams(out: np.ndarray, features: np.ndarray, recipe: FeatureRecipe) -> None:
    """Features without endpoints into the columns that are theirs."""
    column = begin = 0
    for part in recipe.parts:
        out[:, column : column + part.dim] = features[:, begin : begin + part.dim]
        column += part.dim + NUM_ENDPOINTS * part.has_endpoints
        begin += part.dim


def fill_endpoints(out: np.ndarray, recipe: FeatureRecipe) -> None:
    """Begin and end of each clip, as fractions of the window that `out` is, into the columns that are theirs."""
    ends = endpoints(len(out))
    for column in endpoint_columns(recipe):
        out[:, column : column + NUM_ENDPOINTS] = ends


def endpoints(num_clips: int) -> np.ndarray:
    """(clips, 2) float32: k / clips and (k + 1) / clips."""
    count = np.arange(num_clips, dtype=np.float32)
    return np.stack([count / num_clips, (count + 1) / num_clips], axis=1).astype(np.float32)


def endpoint_columns(recipe: FeatureRecipe) -> tuple[int, ...]:
    """Where endpoints begin in a row."""
    columns, column = [], 0
    for part in recipe.parts:
        column += part.dim
        if part.has_endpoints:
            columns.append(column)
            column += NUM_ENDPOINTS
    return tuple(columns)
