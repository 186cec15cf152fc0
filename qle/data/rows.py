"""Which cached rows stand for a video at one sample rate: the same rule for training and for localization. No torch.

    Video + rate -> RowChoice: numbers of cached rows, their times, the stretch of time that each stands for

A head that is trained on rows a second apart knows nothing about rows 40 ms apart, so the rate belongs to the run, and here
is the only place that applies it. Times are those that were stored with the rows; nothing is rebuilt from row numbers.
The row for time t is the one that is shown at t, as in extraction: choosing 1 row a second out of a space that holds every
frame gives the frames that extraction at 1 fps would have taken.
"""

from dataclasses import dataclass

import numpy as np

from qle.cache.reader import Space, Video
from qle.errors import ConfigError
from qle.segments.spans import row_edges

TICKS_S = (1 / 1000, 1 / 90000)
"""Stamps are rounded to ticks, so a row may be stamped half a tick later than the time it was taken for. Where all are whole
milliseconds (Matroska, FLV) that is the tick, else the fine one of other containers."""
HOLE_FACTOR = 4.0
"""A row that would have to stand for more than this many times the usual distance does not show what is there."""
SAME_RATE = 0.01
"""Rates that differ by less than this part are the same: 29.97 frames a second are taken whole when 30 are asked."""
MOST_FILMS = 100
"""Films whose own rate is looked at before a message advises to extract at a higher one."""
FALLBACK_ROW_S = 1.0
"""How long a row lasts where nothing in the record tells (one row of an imported file)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """The rows of one video that are used. Seconds count from the beginning of the video, or of the clip of a manifest."""

    index: np.ndarray
    """(rows,) int64: numbers of cached rows, non-decreasing."""
    times_s: np.ndarray
    """(rows,) float64: when each is shown, non-decreasing, never negative."""
    edges_s: np.ndarray
    """(rows + 1,) float64: row k stands for edges_s[k] .. edges_s[k + 1]; together they are the whole video."""
    valid: np.ndarray
    """(rows,) bool: the row's frame was really on screen at the time that it was chosen for."""
    duration_s: float

    @property
    def num_rows(self) -> int:
        return len(self.index)


def choose_rows(video: Video, rate_fps: float | None) -> RowChoice:
    """Every cached row (None), or the row shown at each of 0, 1/rate, 2/rate, ... seconds.

    ConfigError where the rate is not positive, or higher than that of the cached rows.
    """
    pts_s, cached_valid = video.pts, video.valid
    begin_s, end_s = extent_s(video)
    if rate_fps is None:
        index, valid = np.arange(len(pts_s)), cached_valid
    else:
        index, valid = _at_rate(video, rate_fps, begin_s, end_s)
    times_s = np.clip(pts_s[index] - begin_s, 0.0, end_s - begin_s)
    return RowChoice(
        index=index.astype(np.int64),
        times_s=times_s,
        edges_s=row_edges(times_s, 0.0, end_s - begin_s),
        valid=np.asarray(valid, dtype=bool).copy(),
        duration_s=end_s - begin_s,
    )


def extent_s(video: Video) -> tuple[float, float]:
    """Beginning and end of the video, or of the clip that a manifest listed, on the clock of its container."""
    source, pts_s = video.record.source, video.pts
    first_s, last_s = float(pts_s[0]), float(pts_s[-1])
    begin_s = first_s if source.start_s is None else source.start_s
    if source.duration_s > 0:
        # Of a clip from the middle the film's own beginning is not recorded, but how many frames lie before its first row.
        frames_before = int(video.index[0])
        film_s = first_s - (frames_before / source.fps if frames_before and source.fps > 0 else 0.0)
        end_s = max(film_s + source.duration_s, last_s)
    else:
        end_s = last_s + _row_s(video)
    if source.end_s is not None:
        end_s = min(end_s, source.end_s)
    return begin_s, end_s if end_s > max(begin_s, last_s) else max(begin_s, last_s) + _row_s(video)


def space_rate_fps(space: Space) -> float | None:
    """Rows a second of a space that was sampled at a fixed rate; None for every frame, every Nth, or unknown."""
    sampling = space.record.hashed.get("sampling")
    rate = sampling.get("fps") if isinstance(sampling, dict) else None
    return float(rate) if isinstance(rate, int | float) else None


def check_rate(space: Space, rate_fps: float | None) -> None:
    """ConfigError where a space that was sampled at a fixed rate has fewer rows a second than asked for."""
    own_fps = space_rate_fps(space)
    if rate_fps is not None and own_fps is not None and rate_fps > own_fps * (1 + SAME_RATE):
        films_fps = [space.video(key).record.source.fps for key in space.keys()[:MOST_FILMS]]
        raise _too_fast(f"space {space.path.name}", own_fps, rate_fps, max(films_fps, default=0.0) or None)


def _at_rate(video: Video, rate_fps: float, begin_s: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows, and whether each really shows its time."""
    if not 0 < rate_fps < np.inf:
        raise ConfigError(f"rate_fps = {rate_fps}: expected rows a second, above 0")
    pts_s, cached_valid = video.pts, video.valid
    gaps_s = np.diff(pts_s)
    gaps_s = gaps_s[gaps_s > 0]
    usual_s = float(np.median(gaps_s)) if len(gaps_s) else 1 / rate_fps
    span_s = float(pts_s[-1] - pts_s[0])
    own_fps = max(1 / usual_s, len(pts_s) / span_s if span_s > 0 else 0.0)
    if len(gaps_s) and rate_fps > own_fps * (1 + SAME_RATE):
        raise _too_fast(f"video {video.key!r}", own_fps, rate_fps, video.record.source.fps or None)
    if len(gaps_s) and abs(rate_fps * usual_s - 1) < SAME_RATE:
        return np.arange(len(pts_s)), cached_valid
    wanted_s = np.arange(max(1, int(np.ceil((end_s - begin_s) * rate_fps - 1e-6)))) / rate_fps + begin_s
    index = _shown_at(pts_s, wanted_s)
    return index, cached_valid[index] & (wanted_s - pts_s[index] <= HOLE_FACTOR * usual_s)


def _shown_at(pts_s: np.ndarray, wanted_s: np.ndarray) -> np.ndarray:
    """The last row stamped no later than each time. Rows that repeat one frame share its stamp, and the time that it
    stays: a time picks the one of them that was taken for it, since only some of them may be valid."""
    in_ms = pts_s * 1000
    slack_s = TICKS_S[0 if np.all(np.abs(in_ms - np.rint(in_ms)) < 1e-6) else 1] / 2
    last = np.maximum(np.searchsorted(pts_s, wanted_s + slack_s, side="right") - 1, 0)
    first = np.searchsorted(pts_s, pts_s[last], side="left")
    following_s = pts_s[np.minimum(last + 1, len(pts_s) - 1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        row_s = (following_s - pts_s[last]) / (last - first + 1)
        step = np.floor((wanted_s - pts_s[last] + slack_s) / row_s)
    step = np.where(np.isfinite(step), np.clip(step, 0, last - first), last - first)
    return (first + step).astype(np.int64)


def _row_s(video: Video) -> float:
    """How long a row lasts, as far as the video itself tells."""
    gaps_s = np.diff(video.pts)
    gaps_s = gaps_s[gaps_s > 0]
    if len(gaps_s):
        return float(np.median(gaps_s))
    return 1 / video.record.source.fps if video.record.source.fps > 0 else FALLBACK_ROW_S


def _too_fast(what: str, own_fps: float, rate_fps: float, film_fps: float | None) -> ConfigError:
    """More rows a second than the film has frames can never be extracted, so that is not advised."""
    is_possible = film_fps is None or rate_fps <= film_fps * (1 + SAME_RATE)
    again = f", or extract again with: qle extract --fps {rate_fps:g}" if is_possible else ""
    film = "" if is_possible else f" (and films have {film_fps:.4g} frames a second at most)"
    return ConfigError(
        f"{what} has {own_fps:.4g} rows a second, {rate_fps:.4g} were asked for{film}\n"
        f"lower rate_fps to {own_fps:.4g} or less{again}"
    )
