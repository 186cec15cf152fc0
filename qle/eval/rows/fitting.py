"""Validation scores to the constants of localization: temperature and bias, smoothing, thresholds, gaps, presence.

    scored validation queries -> Localization, stored in the run; nothing of it ever sees test data

For each smoothing width, temperature and bias are fitted by least negative log-likelihood (Platt, weighted by seconds), and
presence by a logistic fit. Then thresholds are searched that maximise the mean of two numbers that people read: F1 of
moments at tIoU 0.5, where only queries that are more likely present than absent have any, and F1 of seconds at the
threshold. Then follow the least duration and the gap, thresholds once more, and the presence that a moment needs. A setting
replaces a simpler one only where it is better, so an easy validation set leaves the defaults. Where there is nothing to fit
(no positives, no negatives), the defaults stay.

The search cuts all pairs at once and matches without a loop: the moments of a pair do not overlap, nor do its windows (they are
united first), so at tIoU >= 0.5 hardly any moment has two partners, and counting partners is the greedy matching.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qle.eval.logistic import fit_calibration, fit_presence
from qle.eval.ranking import f1
from qle.eval.rows.scored import (
    RowTable,
    ScoredQuery,
    cut_rows,
    presences,
    probabilities,
    row_table,
    smoothed_logits,
    where_present,
)
from qle.eval.windows import Windows
from qle.segments.spans import HALF, pair_iou, union
from qle.segments.tracks import Localization, Spans, calibrated

SMOOTHING_ROWS = (0.0, 3.0, 5.0, 9.0)
"""Widths that are tried, in median rows; none above half of a typical window."""
THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.05)
"""The simplest first; beside them quantiles of the probability of positives, for heads that are never sure."""
THRESHOLD_QUANTILES = (0.1, 0.25, 0.5, 0.75)
PRESENCE_THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9)
"""The first holds while the other constants are looked for: what is more likely absent than present has no moment."""
LOW_RATIOS = (1.0, 0.75, 0.5, 0.25)
DURATION_RATIOS = (0.0, 0.25, 0.5)
"""Least duration in units of a short window (the tenth percentile)."""
GAP_RATIOS = (0.0, 0.5, 1.0)
"""Merge gap in the same unit."""
MOST_SEARCH_ROWS = 200_000
"""The search takes whole pairs up to so many rows; the calibration takes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What stays the same while settings are tried."""

    table: RowTable
    windows: Windows
    probability: np.ndarray
    """(rows,) float32 of the smoothing that is being tried."""
    presence: np.ndarray
    """(pairs,) float64"""
    row_f1: Mapping[float, float]
    """F1 over seconds, by threshold."""

    @classmethod
    def of(cls, table: RowTable, windows: Windows, probability: np.ndarray, presence: np.ndarray) -> "_Search":
        label_s = table.seconds[table.label].sum()
        row_f1 = {}
        for threshold in _thresholds(probability[table.label & table.usable]):
            over = probability >= np.float32(threshold)
            value = f1(table.seconds[over & table.label].sum(), table.seconds[over].sum(), label_s)
            row_f1[threshold] = float(np.nan_to_num(value))
        return cls(table=table, windows=windows, probability=probability, presence=presence, row_f1=row_f1)

    def value(self, localization: Localization) -> float:
        """The value of the moments that are told."""
        spans = where_present(cut_rows(self.table, self.probability, localization), self.presence, localization)
        moments = np.nan_to_num(f1(num_matched(spans, self.windows), len(spans.owner), len(self.windows.owner)))
        return (float(moments) + self.row_f1[localization.threshold]) / 2

    def best(self, start: Localization, trials: Iterable[Localization]) -> tuple[Localization, float]:
        """The first of those that are better than all before."""
        best, best_value = start, self.value(start)
        for trial in trials:
            if (value := self.value(trial)) > best_value + 1e-9:
                best, best_value = trial, value
        return best, best_value


def fit_localization(scored: Sequence[ScoredQuery]) -> Localization:
    """Constants for these scores; the defaults where there are no positive or no negative rows to fit to."""
    if not scored:
        return Localization()
    table = row_table(scored)
    if not (table.label & table.usable).any() or not (~table.label & table.usable).any():
        return Localization()
    windows = [[tuple(span) for span in union(query.annotation.windows).tolist()] for query in scored]
    short_s = _short_window_s(Windows.of(windows))
    chosen = _search_pairs(table)
    part = row_table([scored[k] for k in chosen])
    part_windows = Windows.of([windows[k] for k in chosen])
    best: tuple[float, Localization] = (-1.0, Localization())
    for width_s in _widths(table, Windows.of(windows)):
        logit = smoothed_logits(scored, width_s)
        peak = table.peak(logit)
        start = _fit_presence(replace(_calibrate(table, logit), smoothing_s=width_s), scored, peak)
        in_part = np.concatenate([logit[table.first[k] : table.first[k + 1]] for k in chosen])
        probability = probabilities(calibrated(in_part, start))
        search = _Search.of(part, part_windows, probability, presences(scored, peak, start)[chosen])
        localization, value = _search(search, start, short_s)
        if value > best[0] + 1e-9:
            best = (value, localization)
    return best[1]


def _search(search: _Search, start: Localization, short_s: float) -> tuple[Localization, float]:
    thresholds = list(search.row_f1)
    start = replace(start, threshold=thresholds[0], low_threshold=thresholds[0])
    best, _ = search.best(start, _threshold_trials(start, thresholds))
    best, _ = search.best(
        best,
        [
            replace(best, min_duration_s=duration * short_s, merge_gap_s=gap * short_s)
            for duration in DURATION_RATIOS
            for gap in GAP_RATIOS
        ],
    )
    best, _ = search.best(best, _threshold_trials(best, thresholds))
    return search.best(best, [replace(best, presence_threshold=threshold) for threshold in PRESENCE_THRESHOLDS])


def _threshold_trials(start: Localization, thresholds: Sequence[float]) -> list[Localization]:
    return [
        replace(start, threshold=threshold, low_threshold=threshold * low)
        for low in LOW_RATIOS
        for threshold in thresholds
    ]


def _thresholds(positive: np.ndarray) -> list[float]:
    """Fixed ones, and quantiles of what positives get."""
    quantiles = np.quantile(positive, THRESHOLD_QUANTILES).tolist() if len(positive) else []
    return list(dict.fromkeys([*THRESHOLDS, *(round(float(value), 6) for value in quantiles if 0 < value < 1)]))


def _calibrate(table: RowTable, logit: np.ndarray) -> Localization:
    """Temperature and bias, every row weighted by its seconds."""
    rows = np.flatnonzero(table.usable & (table.seconds > 0))
    rows = rows if len(rows) else np.flatnonzero(table.usable)
    seconds = table.seconds[rows]
    weight = seconds * len(rows) / seconds.sum() if seconds.sum() > 0 else np.ones(len(rows))
    temperature, bias = fit_calibration(logit[rows], table.label[rows], weight)
    return Localization(temperature=temperature, bias=bias)


def _fit_presence(localization: Localization, scored: Sequence[ScoredQuery], peak: np.ndarray) -> Localization:
    """Drawn towards what the head itself says: its presence output, or the score at the peak."""
    is_present = [query.annotation.is_present for query in scored]
    own = [query.track.presence_logit for query in scored]
    if all(logit is not None for logit in own):
        told = np.where(np.isfinite(peak), np.array(own, dtype=np.float64), -np.inf)
        scale, bias = fit_presence(told, is_present, 1.0, 0.0)
    else:
        scale, bias = fit_presence(peak, is_present, localization.temperature, localization.bias)
    return replace(localization, presence_scale=scale, presence_bias=bias, presence_threshold=PRESENCE_THRESHOLDS[0])


def num_matched(spans: Spans, windows: Windows) -> int:
    """How many moments have a window with tIoU >= 0.5, and no more than there are windows with a moment.

    Equal to greedy matching but where two moments split one window into exact halves.
    """
    counts = windows.counts
    first = np.cumsum(counts) - counts
    repeats = counts[spans.owner]
    span = np.repeat(np.arange(len(spans.owner)), repeats)
    window = np.arange(len(span)) - np.repeat(np.cumsum(repeats) - repeats, repeats) + first[spans.owner[span]]
    overlap = pair_iou(spans.start_s[span], spans.end_s[span], windows.start_s[window], windows.end_s[window])
    hit = overlap >= HALF
    return min(len(np.unique(span[hit])), len(np.unique(window[hit])))


def _short_window_s(windows: Windows) -> float:
    return float(np.quantile(windows.end_s - windows.start_s, 0.1))


def _widths(table: RowTable, windows: Windows) -> list[float]:
    row_s = float(np.median(table.seconds[table.usable]))
    most_s = float(np.median(windows.end_s - windows.start_s)) / 2
    return [0.0] + [round(rows * row_s, 6) for rows in SMOOTHING_ROWS[1:] if 0 < rows * row_s <= most_s]


def _search_pairs(table: RowTable) -> np.ndarray:
    """Numbers of the pairs that the search looks at: all, or as many as the limit allows, drawn once and for all."""
    drawn = np.random.default_rng(0).permutation(table.num_pairs)
    total = np.cumsum(np.diff(table.first)[drawn])
    return np.sort(drawn[: max(1, int(np.searchsorted(total, MOST_SEARCH_ROWS, side="right")))])
