"""How well scores put positives before negatives: AUROC, average precision, F1. Ties count as ties, whatever the order of rows.

    scores -> rank -> RankedRows -> count (labels) -> ScoreCounts -> auroc, average_precision

Rows with equal scores form a group, best group first, and every metric is a sum over groups. Counts may have leading axes
(resamples, videos), so the bootstrap runs through the same functions. A metric that does not exist (no positives, no
negatives) is NaN.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class RankedRows:
    """An order of rows, best first."""

    order: np.ndarray
    """(rows,) int64"""
    first: np.ndarray
    """(groups,) int64: position in `order` where each group of equal scores begins."""


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """Positives and negatives in each group, best group first: (..., groups) float64."""

    positive: np.ndarray
    negative: np.ndarray


def ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.where(whole != 0, part / np.where(whole != 0, whole, 1), np.nan)


def mean_known(values: np.ndarray) -> float:
    """Mean of those that are not NaN; NaN where all are."""
    known = np.isfinite(values)
    return float(ratio(values[known].sum(), known.sum()))


def rank(scores: np.ndarray) -> RankedRows:
    """Sort once, measure often. Scores must not be NaN; infinite ones are fine."""
    order = np.argsort(-scores)
    ordered = scores[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return RankedRows(order, np.flatnonzero(is_first))


def count(ranking: RankedRows, labels: np.ndarray) -> ScoreCounts:
    """Labels (..., rows) bool to counts."""
    if not len(ranking.order):
        return ScoreCounts(np.zeros(labels.shape), np.zeros(labels.shape))
    positive = np.add.reduceat(labels[..., ranking.order].astype(np.float64), ranking.first, axis=-1)
    return ScoreCounts(positive, np.diff(ranking.first, append=len(ranking.order)) - positive)


def auroc(counts: ScoreCounts) -> np.ndarray:
    """(...): the chance that a positive is above a negative; half of it where they are level."""
    before = np.cumsum(counts.positive, axis=-1) - counts.positive / 2
    pairs = counts.positive.sum(axis=-1) * counts.negative.sum(axis=-1)
    return ratio((counts.negative * before).sum(axis=-1), pairs)


def average_precision(
    counts: ScoreCounts, num_positives: np.ndarray | float | None = None, *, is_interpolated: bool = False
) -> np.ndarray:
    """(...): precision where each group ends, weighted by the recall that the group adds. A perfect order gives 1.

    `num_positives`: where more exist than were scored (moments that were never proposed). Interpolated: the best precision at
    that recall or a higher one, as in the ActivityNet and QVHighlights code for moments.
    """
    true = np.cumsum(counts.positive, axis=-1)
    seen = true + np.cumsum(counts.negative, axis=-1)
    precision = true / np.maximum(seen, 1e-300)
    if is_interpolated and precision.shape[-1]:
        precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    total = counts.positive.sum(axis=-1) if num_positives is None else num_positives
    return ratio((precision * counts.positive).sum(axis=-1), total)


def false_alarms(counts: ScoreCounts, misses: float) -> np.ndarray:
    """(...): the share of negatives that score as high as the value which all but `misses` of the positives reach."""
    reached = np.cumsum(counts.positive, axis=-1)
    needed = (1 - misses) * counts.positive.sum(axis=-1, keepdims=True)
    passed = np.concatenate([np.zeros((*reached.shape[:-1], 1), bool), (reached >= needed - 1e-9)[..., :-1]], axis=-1)
    alarms = (counts.negative * ~passed).sum(axis=-1)
    known = counts.positive.sum(axis=-1) > 0
    return np.where(known, ratio(alarms, counts.negative.sum(axis=-1)), np.nan)


def auroc_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC of (rows,) scores and bool labels."""
    return float(auroc(count(rank(scores), labels)))


def f1(true: np.ndarray | float, predicted: np.ndarray | float, actual: np.ndarray | float) -> np.ndarray:
    """Harmonic mean of true / predicted and true / actual; NaN where nothing is predicted and nothing is there."""
    return ratio(2 * np.asarray(true, dtype=np.float64), np.asarray(predicted) + np.asarray(actual))
