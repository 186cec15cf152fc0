"""Do probabilities mean what they say? ECE, adaptive ECE, Brier score, negative log-likelihood, AURC.

The event is "the query happens in this row". Enter (rows,) probabilities, or log-odds where a probability would be rounded to
0 or 1, and bool labels; numbers leave. NaN where there are no rows.
"""

import numpy as np

from qle.eval.ranking import rank, ratio

NUM_BINS = 15


def bin_sums(probability: np.ndarray, labels: np.ndarray, video: np.ndarray, num_videos: int) -> np.ndarray:
    """(videos, 3, NUM_BINS): rows, sum of probability, number of positives in each of the equal-width bins."""
    size = num_videos * NUM_BINS
    cell = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1) + video * NUM_BINS
    rows = np.bincount(cell, minlength=size)
    total = np.bincount(cell, weights=probability, minlength=size)
    positive = np.bincount(cell, weights=labels, minlength=size)
    return np.stack([sums.reshape(num_videos, NUM_BINS) for sums in (rows, total, positive)], axis=1)


def ece_of_sums(sums: np.ndarray) -> np.ndarray:
    """(...,): of (..., 3, bins) sums: mean over rows of |mean probability - share of positives| of their bin."""
    return ratio(np.abs(sums[..., 1, :] - sums[..., 2, :]).sum(axis=-1), sums[..., 0, :].sum(axis=-1))


def ece(probability: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error, 15 bins of equal width."""
    video = np.zeros(len(labels), dtype=np.int64)
    return float(ece_of_sums(bin_sums(probability, labels, video, 1)[0]))


def adaptive_ece(probability: np.ndarray, labels: np.ndarray) -> float:
    """Likewise with 15 bins that hold equally many rows. Equal probabilities share a bin, so the order of rows is nothing."""
    if not len(labels):
        return float("nan")
    ranking = rank(probability)
    size = np.diff(ranking.first, append=len(labels))
    bins = np.repeat((np.cumsum(size) - size) * NUM_BINS // len(labels), size)
    gap = np.bincount(bins, weights=probability[ranking.order].astype(np.float64) - labels[ranking.order])
    return float(np.abs(gap).sum() / len(labels))


def brier(probability: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance from the label."""
    return float(np.mean(np.square(probability.astype(np.float64) - labels))) if len(labels) else float("nan")


def row_nll(log_odds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(rows,) float64: -log of the probability that the truth was given; exact for any log-odds."""
    signed = np.where(labels, -1.0, 1.0) * log_odds
    return np.asarray(np.maximum(signed, 0) + np.log1p(np.exp(-np.abs(signed))))


def aurc(probability: np.ndarray, labels: np.ndarray) -> float:
    """Area under the risk-coverage curve: the error rate at 0.5 among the most confident rows, averaged over how many are kept.

    Confidence is |p - 0.5|: a confident "no" counts as a confident "yes" does. Equally confident rows enter with their common
    error rate, so that their order is nothing.
    """
    if not len(labels):
        return float("nan")
    wrong = ((probability >= 0.5) != labels).astype(np.float64)
    ranking = rank(np.abs(probability.astype(np.float64) - 0.5))
    size = np.diff(ranking.first, append=len(labels))
    share = np.repeat(np.add.reduceat(wrong[ranking.order], ranking.first) / size, size)
    return float(np.mean(np.cumsum(share) / np.arange(1, len(labels) + 1)))
