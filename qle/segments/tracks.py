"""Score tracks to moments, right at the edges; spans without gradients. numpy only.

    times -> edges -> smooth -> calibrate -> hysteresis -> merge -> drop short -> Moment

Rows stand for stretches of time (`row_edges`), so everything is weighted by seconds, not by rows: uneven sampling, one row,
invalid rows and the ends of the video need no special cases. A row is *usable* when it is valid and its logit is finite;
the others take no part in any mean and show what their usable neighbours say.

The cutting works on many tracks at once (`cut`): they lie end to end and `owner` says which row belongs to which. Fitting and
evaluation cut thousands of tracks hundreds of times, and `moments_of` is the same code with one owner, so there is one rule.
"""

import math
from dataclasses import dataclass

import numpy as np

from qle.errors import ConfigError
from qle.types import Moment, ScoreTrack

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


# Spans


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
    moments = _cut(track, localization)
    if moments:
        return moments[0]
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
    index = int(np.searchsorted(below, peak))
    return (int(below[index - 1]) + 1 if index else 0), (int(below[index]) if index < len(below) else len(log_odds))


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
