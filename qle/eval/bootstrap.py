"""Intervals by resampling videos: rows of one video depend on each other, videos do not.

Each metric is reduced to statistics per video (sums, or a histogram of scores); a resample is a vector of how often each video
was drawn, and a thousand resamples are one matrix product. Sums are exact. Histograms are an approximation: scores in one bin
count as ties. Bins hold equal parts of all rows and of the positives, so with 2,000 of them AUROC is off by less than 0.001
and AP by less than 0.002 (tests/unit/eval/test_bootstrap.py), far below the width of the interval itself.
"""

import numpy as np

from qle.eval.ranking import RankedRows, ScoreCounts, ratio

NUM_BINS = 2000
LEVEL = 0.95


def video_draws(num_videos: int, num_resamples: int, seed: int) -> np.ndarray:
    """(resamples, videos) float64: how often each video is drawn; each row sums to the number of videos."""
    chances = np.full(num_videos, 1 / num_videos)
    return np.random.default_rng(seed).multinomial(num_videos, chances, size=num_resamples).astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """Percentile interval of a metric over resamples, those left out where it does not exist; None where it never does."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_draws(draws: np.ndarray, values: np.ndarray, video: np.ndarray) -> np.ndarray:
    """(resamples,): mean over items, of which each belongs to a video and some may be NaN (left out)."""
    known = np.isfinite(values)
    total = np.bincount(video[known], weights=values[known], minlength=draws.shape[1])
    return ratio(draws @ total, draws @ np.bincount(video[known], minlength=draws.shape[1]))


def histograms(
    ranking: RankedRows, labels: np.ndarray, video: np.ndarray, num_videos: int, num_bins: int = NUM_BINS
) -> ScoreCounts:
    """(videos, bins): rows of each video by score, best bin first. Equal scores share a bin."""
    shape = (num_videos, num_bins)
    if not len(labels):
        return ScoreCounts(np.zeros(shape), np.zeros(shape))
    size = np.diff(ranking.first, append=len(labels))
    positive = np.add.reduceat(labels[ranking.order].astype(np.float64), ranking.first)
    # How far down the list a group lies, in rows and in positives: both decide, since positives may be few.
    depth = (np.cumsum(size) - size) / len(labels)
    if positive.any():
        depth = (depth + (np.cumsum(positive) - positive) / positive.sum()) / 2
    bin_of_group = np.minimum((depth * num_bins).astype(np.int64), num_bins - 1)
    cell = video[ranking.order] * num_bins + np.repeat(bin_of_group, size)
    every = np.bincount(cell, minlength=num_videos * num_bins).reshape(shape)
    true = np.bincount(cell[labels[ranking.order]], minlength=num_videos * num_bins).reshape(shape)
    return ScoreCounts(true.astype(np.float64), (every - true).astype(np.float64))


def drawn(draws: np.ndarray, counts: ScoreCounts) -> ScoreCounts:
    """(resamples, bins): the counts of each resample."""
    return ScoreCounts(draws @ counts.positive, draws @ counts.negative)
