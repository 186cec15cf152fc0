"""Score tracks to moments, right at the edges; spans without gradients. numpy only.

    times -> edges -> smooth -> calibrate -> hysteresis -> merge -> drop short -> Moment

Rows stand for stretches of time (`row_edges`), so everything is weighted by seconds, not by rows: uneven sampling, one row,
invalid rows and the ends of the video need no special cases. A row is *usable* when it is valid and its logit is finite;
the others take no part in any mean and show what their usable neighbours say.

The cutting works on many tracks at once (`cut`): they lie end to end and `owner` says which row belongs to which. Fitting and
evaluation cut thousands of tracks hundreds of times, and `moments_of` is the same code with one owner, so there is one rule.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qle.errors import ConfigError
from qle.types import Moment, ScoreTrack

HALF = 0.5 - 1e-9
"""A row belongs to a window that covers half of it; the rest is rounding, e.g. of a midpoint between two times."""

GUESS_RATIO = 0.5
"""`best_moment`, where nothing reaches the threshold: rows around the peak that are at least half as probable as it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """The constants that turn logits into moments. Fitted on validation data (eval/fitting.py), stored in the run."""

    temperature: float = 1.0
    """Probability = sigmoid(logit / temperature + bias)."""
    bias: float = 0.0
    threshold: float = 0.5
    """A moment must reach this probability somewhere ..."""
    low_threshold: float = 0.5
    """... and lasts while it stays at or above this (hysteresis)."""
    smoothing_s: float = 0.0
    """Width of the smoothing window over the logits."""
    min_duration_s: float = 0.0
    merge_gap_s: float = 0.0
    """Moments that are closer than this become one."""
    presence_scale: float = 1.0
    """Presence = sigmoid(presence_scale * logit + presence_bias), logit: the presence output of the head, or of heads without
    one the highest smoothed logit of a valid row."""
    presence_bias: float = 0.0
    presence_threshold: float = 0.0
    """No moment is told where presence is lower, and no score of one is above presence. 0, in runs from before there was such
    a threshold: presence has no say in moments."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"localization.{name} = {getattr(self, name)}: expected a finite number")
        if self.temperature <= 0:
            raise ConfigError(f"localization.temperature = {self.temperature}: expected a number above 0")
        for name in ("smoothing_s", "min_duration_s", "merge_gap_s", "presence_scale"):
            if getattr(self, name) < 0:
                raise ConfigError(f"localization.{name} = {getattr(self, name)}: expected 0 or more")
        if not 0 <= self.presence_threshold <= 1:
            raise ConfigError(f"localization.presence_threshold = {self.presence_threshold}: expected 0..1")
        if not 0 <= self.low_threshold <= self.threshold <= 1:
            raise ConfigError(
                f"localization: expected 0 <= low_threshold <= threshold <= 1, "
                f"got low_threshold = {self.low_threshold}, threshold = {self.threshold}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Stretches of several tracks, by owner and then by time; those of one owner do not overlap."""

    owner: np.ndarray
    """(spans,) int64"""
    start_s: np.ndarray
    end_s: np.ndarray
    score: np.ndarray
    """(spans,) float64 in [0, 1]: mean probability, weighted by seconds."""


# Times and rows


def row_edges(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """(rows + 1,): half way between the times of neighbouring rows; the first and last rows reach to the ends of the video.

    Any number of rows from one on, times that do not decrease. Edges never leave [start_s, end_s], whatever the times.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if not len(times) or not end_s >= start_s or np.any(np.diff(times) < 0):
        raise ValueError(
            f"edges of {len(times)} rows in {start_s}..{end_s}: expected rows, in order, in a forward stretch"
        )
    middle = np.clip((times[1:] + times[:-1]) / 2, start_s, end_s)
    return np.concatenate([[start_s], middle, [end_s]])


def window_cover(windows: Sequence[tuple[float, float]] | np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """(rows,) float64 in [0, 1]: the part of each row that lies inside any of the windows, which may overlap.

    A row without length (two rows at one time) counts as inside or outside by its time alone.
    """
    edges = np.asarray(edges_s, dtype=np.float64)
    spans = union(windows)
    if not len(spans):
        return np.zeros(len(edges) - 1)
    starts, ends = spans.T
    # Seconds covered up to a time: that is piecewise linear, with corners where windows begin and end.
    covered_s = np.concatenate([[0.0], np.cumsum(ends - starts)])
    seconds = np.diff(np.interp(edges, spans.ravel(), np.repeat(covered_s, 2)[1:-1]))
    width = np.diff(edges)
    inside = np.searchsorted(starts, edges[:-1], side="right") > np.searchsorted(ends, edges[:-1], side="right")
    return np.where(width > 0, np.clip(seconds / np.where(width > 0, width, 1), 0, 1), inside)


def mask_of(windows: Sequence[tuple[float, float]] | np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """(rows,) bool: True where windows cover at least half of the row. The one rule for labels, in training and evaluation."""
    return np.asarray(window_cover(windows, edges_s) >= HALF)


def spans_of(mask: np.ndarray, edges_s: np.ndarray) -> np.ndarray:
    """(spans, 2): the stretches of consecutive True rows. `mask_of(spans_of(mask, edges), edges)` is `mask` again."""
    bounds = np.flatnonzero(np.diff(np.asarray(mask, dtype=np.int8), prepend=0, append=0))
    return np.asarray(edges_s, dtype=np.float64)[bounds].reshape(-1, 2)


def rows_of(start_s: float, end_s: float, edges_s: np.ndarray) -> slice:
    """The rows that a stretch touches; the row that holds `start_s` where the stretch has no length."""
    last = len(edges_s) - 2
    first = min(max(int(np.searchsorted(edges_s, start_s, side="right")) - 1, 0), last)
    stop = int(np.searchsorted(edges_s, end_s, side="left"))
    return slice(first, min(max(stop, first + 1), last + 1))


# Spans


def union(windows: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """(spans, 2): sorted, with windows that touch or overlap made one, and those without length left out."""
    spans = np.asarray(windows, dtype=np.float64).reshape(-1, 2)
    spans = spans[spans[:, 1] > spans[:, 0]]
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    if not len(spans):
        return spans
    reach = np.maximum.accumulate(spans[:, 1])
    is_first = np.ones(len(spans), dtype=bool)
    is_first[1:] = spans[1:, 0] > reach[:-1]
    first = np.flatnonzero(is_first)
    return np.stack([spans[first, 0], reach[np.append(first[1:], len(spans)) - 1]], axis=1)


def iou(spans_a: np.ndarray, spans_b: np.ndarray) -> np.ndarray:
    """(a, b) float64 in [0, 1]: seconds in both over seconds in either; 0 where neither has length."""
    a = np.asarray(spans_a, dtype=np.float64).reshape(-1, 1, 2)
    b = np.asarray(spans_b, dtype=np.float64).reshape(1, -1, 2)
    return pair_iou(a[..., 0], a[..., 1], b[..., 0], b[..., 1])


def pair_iou(start_a: np.ndarray, end_a: np.ndarray, start_b: np.ndarray, end_b: np.ndarray) -> np.ndarray:
    """The same, pair by pair (arrays that broadcast)."""
    both = np.maximum(np.minimum(end_a, end_b) - np.maximum(start_a, start_b), 0)
    either = (end_a - start_a) + (end_b - start_b) - both
    return np.where(either > 0, np.clip(both / np.where(either > 0, either, 1), 0, 1), 0.0)


# Tracks


def smooth(values: np.ndarray, edges_s: np.ndarray, valid: np.ndarray, width_s: float) -> np.ndarray:
    """(rows,) float64: the mean over `width_s` seconds around the middle of each row, weighted by seconds, in linear time.

    The window is cut off at the ends of the video, not padded. Rows that are not usable take no part; they get the values of
    their neighbours, in a straight line between them. All NaN where no row is usable.
    """
    given = np.asarray(values, dtype=np.float64)
    edges = np.asarray(edges_s, dtype=np.float64)
    usable = np.asarray(valid, dtype=bool) & np.isfinite(given)
    if not usable.any():
        return np.full(len(given), np.nan)
    centre = (edges[1:] + edges[:-1]) / 2
    mean = _window_mean(given, edges, usable, width_s) if width_s > 0 else given
    return mean if usable.all() else np.interp(centre, centre[usable], mean[usable])


def _window_mean(values: np.ndarray, edges: np.ndarray, usable: np.ndarray, width_s: float) -> np.ndarray:
    """Differences of running integrals. They are taken from the first usable value, so that a constant stays itself exactly."""
    reference = values[np.argmax(usable)]
    seconds = np.diff(edges) * usable
    safe = np.where(usable, values, reference)
    running = np.zeros((2, len(edges)))
    np.cumsum(seconds, out=running[0, 1:])
    np.cumsum(seconds * (safe - reference), out=running[1, 1:])
    centre = (edges[1:] + edges[:-1]) / 2
    bounds = np.concatenate([centre - width_s / 2, centre + width_s / 2])
    weight, total = (np.diff(np.interp(bounds, edges, sums).reshape(2, -1), axis=0)[0] for sums in running)
    # Rounding of the integrals is about 1e-16 of the whole; a window with less weight than that holds nothing usable.
    held = weight > 1e-12 * max(edges[-1] - edges[0], 1e-300)
    mean = np.where(held, reference + total / np.where(held, weight, 1), safe)
    return np.clip(mean, safe[usable].min(), safe[usable].max())


def calibrated(logit: np.ndarray, localization: Localization) -> np.ndarray:
    """float64 log-odds after temperature and bias."""
    return np.asarray(logit, dtype=np.float64) / localization.temperature + localization.bias


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """For any finite or infinite number, without overflow."""
    small = np.exp(-np.abs(log_odds))
    return np.asarray(np.where(np.asarray(log_odds) >= 0, 1.0, small) / (1.0 + small))


def smoothed_logit(track: ScoreTrack, localization: Localization) -> np.ndarray:
    """(rows,) float64, before calibration; NaN in all rows where none is usable."""
    return smooth(track.logit, track.edges_s, track.valid, localization.smoothing_s)


def probability_of(track: ScoreTrack, localization: Localization) -> np.ndarray:
    """(rows,) float32 in [0, 1]: smoothed, then calibrated. 0 everywhere in a video without a usable row."""
    log_odds = calibrated(smoothed_logit(track, localization), localization)
    return np.where(np.isnan(log_odds), 0.0, sigmoid(log_odds)).astype(np.float32)


def presence_of(track: ScoreTrack, localization: Localization) -> float:
    """Probability in [0, 1] that the query happens anywhere; 0 in a video without a usable row."""
    usable = track.valid & np.isfinite(track.logit)
    if not usable.any():
        return 0.0
    peak = float(smoothed_logit(track, localization)[usable].max())
    return presence_at(presence_logit(track, peak), track, localization)


def presence_logit(track: ScoreTrack, peak: float) -> float:
    """What the head says about presence before calibration; `peak` of heads without such an output."""
    return peak if track.presence_logit is None else track.presence_logit


def presence_at(logit: float, track: ScoreTrack, localization: Localization) -> float:
    """The probability for a logit of presence: calibrated, and no more than the query's words can be understood."""
    presence = float(sigmoid(np.array(localization.presence_scale * logit + localization.presence_bias)))
    return presence if track.familiarity is None else presence * track.familiarity.probability


# Moments


def moments_of(track: ScoreTrack, localization: Localization, *, always_one: bool = False) -> tuple[Moment, ...]:
    """Best first, inside the video, none overlapping; the score is the mean probability, weighted by seconds, and scaled down
    where the best would be above presence: that a query happens at all is never less likely than that it happens here.

    None where no row reaches the threshold, or presence does not reach its own: the query is not there. Rank-1 metrics want
    an answer even then; with `always_one` they get `best_moment`.
    """
    moments = () if presence_of(track, localization) < localization.presence_threshold else _cut(track, localization)
    return (best_moment(track, localization),) if always_one and not moments else moments


def _cut(track: ScoreTrack, localization: Localization) -> tuple[Moment, ...]:
    """Moments as the rows have them, whatever presence is."""
    probability = probability_of(track, localization)
    usable = track.valid & np.isfinite(track.logit)
    owner = np.zeros(len(probability), dtype=np.int64)
    spans = cut(probability, track.edges_s[:-1], track.edges_s[1:], owner, usable, localization)
    order = np.lexsort([spans.start_s, -spans.score])
    factor = score_factor(presence_of(track, localization), spans.score, localization)
    return tuple(
        Moment(start_s=float(spans.start_s[k]), end_s=float(spans.end_s[k]), score=float(spans.score[k] * factor))
        for k in order
    )


def score_factor(presence: float, scores: np.ndarray, localization: Localization) -> float:
    """What scores of one pair are multiplied by, so that the highest is not above presence; 1 where none is."""
    best = float(scores.max()) if len(scores) else 0.0
    return 1.0 if best <= presence or not localization.presence_threshold else presence / best


def best_moment(track: ScoreTrack, localization: Localization) -> Moment:
    """The best that rows alone give, whatever presence says; where there is none a guess: the rows around the peak at least
    GUESS_RATIO times as probable.

    It says nothing about whether the query happens: `presence_of` does. Without a usable row: all of the video, score 0.
    """
    found = _cut(track, localization)
    if found:
        return found[0]
    start, stop = guess_rows(calibrated(smoothed_logit(track, localization), localization))
    seconds = np.diff(track.edges_s)[start:stop] * (track.valid & np.isfinite(track.logit))[start:stop]
    probability = probability_of(track, localization)[start:stop].astype(np.float64)
    score = float(probability @ seconds / seconds.sum()) if seconds.sum() > 0 else float(probability.max())
    score = min(score, 1.0)
    score *= score_factor(presence_of(track, localization), np.array([score]), localization)
    return Moment(start_s=float(track.edges_s[start]), end_s=float(track.edges_s[stop]), score=score)


def guess_rows(log_odds: np.ndarray) -> tuple[int, int]:
    """First row and the one after the last of the guess. In logarithms: probabilities of 1e-300 still have a peak."""
    if np.isnan(log_odds).any():
        return 0, len(log_odds)
    log_probability = -np.logaddexp(0.0, -log_odds)
    peak = int(np.argmax(log_probability))
    below = np.flatnonzero(log_probability < log_probability[peak] + math.log(GUESS_RATIO))
    place = int(np.searchsorted(below, peak))
    return (int(below[place - 1]) + 1 if place else 0), (int(below[place]) if place < len(below) else len(log_odds))


def cut(
    probability: np.ndarray,
    start_s: np.ndarray,
    end_s: np.ndarray,
    owner: np.ndarray,
    usable: np.ndarray,
    localization: Localization,
) -> Spans:
    """Moments of many tracks that lie end to end: (rows,) arrays, `owner` non-decreasing, rows of an owner in order of time."""
    first, stop = _runs(probability, owner, localization)
    # Gaps that are too short: in the sorted list, a run begins a new moment unless it follows closely on one of its owner.
    gap_s = start_s[first[1:]] - end_s[stop[:-1] - 1]
    is_new = np.ones(len(first), dtype=bool)
    is_new[1:] = (owner[first[1:]] != owner[first[:-1]]) | ((gap_s >= localization.merge_gap_s) & (gap_s > 0))
    opens = np.flatnonzero(is_new)
    first, stop = first[opens], stop[np.append(opens[1:], len(stop)) - 1] if len(stop) else stop
    duration_s = end_s[stop - 1] - start_s[first]
    kept = (duration_s > 0) & (duration_s >= localization.min_duration_s)
    first, stop = first[kept], stop[kept]
    score = _mean_between(np.asarray(probability, dtype=np.float64), (end_s - start_s) * usable, first, stop)
    return Spans(owner=owner[first], start_s=start_s[first], end_s=end_s[stop - 1], score=score)


def _runs(probability: np.ndarray, owner: np.ndarray, localization: Localization) -> tuple[np.ndarray, np.ndarray]:
    """Rows where a run begins and the ones after its last: at or above the low threshold, and somewhere at the high one."""
    above = probability >= np.float32(localization.low_threshold)
    changes = np.ones(len(above) + 1, dtype=bool)
    changes[1:-1] = (above[1:] != above[:-1]) | (owner[1:] != owner[:-1])
    bounds = np.flatnonzero(changes)
    is_run = above[bounds[:-1]]
    first, stop = bounds[:-1][is_run], bounds[1:][is_run]
    if not len(first):
        return first, stop
    # One extra row, so that `stop` is always a row; every other maximum of reduceat is one of a gap between runs.
    peak = np.maximum.reduceat(np.append(probability, -1.0), np.stack([first, stop], axis=1).ravel())[::2]
    reaches = peak >= np.float32(localization.threshold)
    return first[reaches], stop[reaches]


def _mean_between(values: np.ndarray, weight: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Weighted mean of rows first..stop-1 of each span; plain mean where there is no weight."""
    if not len(first):
        return np.zeros(0)
    bounds = np.stack([first, stop], axis=1).ravel()
    held, total, plain = (
        np.add.reduceat(np.append(rows, 0.0), bounds)[::2] for rows in (weight, weight * values, values)
    )
    mean = np.where(held > 0, total / np.where(held > 0, held, 1), plain / (stop - first))
    return np.clip(mean, 0, 1)
