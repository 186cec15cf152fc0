"""The segment protocol: are the moments the windows? Pooled over all pairs, with intervals by video.

Enter moments of all pairs as `Spans`, twice: as localized (for P, R, F1, mAP), and with one guess for each pair that has none
(for R1 and mIoU, which are measured on queries that occur and must have an answer).
"""

from dataclasses import dataclass

import numpy as np

from qle.eval.bootstrap import drawn, histograms, interval, mean_draws
from qle.eval.ranking import average_precision, f1, mean_known, rank, ratio
from qle.eval.report import Metric
from qle.eval.windows import (
    BOUNDARY_TIOU,
    MAP_TIOU,
    RANK1_TIOU,
    Windows,
    best_overlap,
    boundary_errors,
    match,
    mean_average_precision,
    query_average_precision,
    share_at_least,
)
from qle.segments.tracks import Spans

COUNT_TIOU = (0.3, 0.5, 0.7)
"""Overlaps at which precision, recall and F1 are counted."""
NUM_MAP_BINS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentScores:
    """One way to answer: the head's, or a floor's."""

    spans: Spans
    answered: Spans
    """`spans` and the guesses."""


def segment_metrics(
    scores: SegmentScores, windows: Windows, video: np.ndarray, draws: np.ndarray | None
) -> dict[str, Metric]:
    """`video`: (pairs,). Intervals where there are `draws` (resamples, videos)."""
    spans = scores.spans
    taken = match(spans, windows, MAP_TIOU)
    start, end, hit_owner = boundary_errors(spans, windows, taken[:, _column(BOUNDARY_TIOU)])
    overlap = best_overlap(scores.answered, windows)
    owned: dict[str, tuple[np.ndarray, np.ndarray]] = {
        **{f"r1@{level}": (share_at_least(overlap, level), video) for level in RANK1_TIOU},
        "miou": (overlap, video),
        "map_per_query": (query_average_precision(spans, taken, windows), video),
        "start_error_s": (start, video[hit_owner]),
        "end_error_s": (end, video[hit_owner]),
    }
    means = {
        name: Metric(
            value=mean_known(values), interval=None if draws is None else interval(mean_draws(draws, values, where))
        )
        for name, (values, where) in owned.items()
    }
    first = ("r1@0.3", "r1@0.5", "r1@0.7", "miou")
    return {
        **{name: means.pop(name) for name in first},
        **_counted(spans, windows, video, taken, draws),
        **_ranked(spans, windows, video, taken, draws),
        **means,
    }


def _counted(
    spans: Spans, windows: Windows, video: np.ndarray, taken: np.ndarray, draws: np.ndarray | None
) -> dict[str, Metric]:
    """Precision, recall and F1."""
    num_videos = int(video.max()) + 1
    metrics: dict[str, Metric] = {}
    proposed = np.bincount(video[spans.owner], minlength=num_videos)
    actual = np.bincount(video[windows.owner], minlength=num_videos)
    for level in COUNT_TIOU:
        hit = taken[:, _column(level)] >= 0
        matched = np.bincount(video[spans.owner[hit]], minlength=num_videos)
        sums = np.stack([matched, proposed, actual]).astype(np.float64)
        parts = {"precision": (0, 1), "recall": (0, 2)}
        for name, (part, whole) in parts.items():
            spread = None if draws is None else interval(ratio(draws @ sums[part], draws @ sums[whole]))
            metrics[f"{name}@{level}"] = Metric(
                value=float(ratio(sums[part].sum(), sums[whole].sum())), interval=spread
            )
        spread = None if draws is None else interval(f1(*(draws @ part for part in sums)))
        metrics[f"f1@{level}"] = Metric(value=float(f1(*sums.sum(axis=1))), interval=spread)
    return metrics


def _ranked(
    spans: Spans, windows: Windows, video: np.ndarray, taken: np.ndarray, draws: np.ndarray | None
) -> dict[str, Metric]:
    """mAP over all tIoU, and AP at some."""
    values = mean_average_precision(spans, taken, len(windows.owner))
    spread = np.full((len(MAP_TIOU), 0 if draws is None else len(draws)), np.nan)
    if draws is not None:
        total = draws @ np.bincount(video[windows.owner], minlength=draws.shape[1])
        ranking = rank(spans.score)
        for column, hit in enumerate((taken >= 0).T):
            counts = histograms(ranking, hit, video[spans.owner], draws.shape[1], NUM_MAP_BINS)
            spread[column] = average_precision(drawn(draws, counts), total, is_interpolated=True)
    metrics = {"map": Metric(value=float(values.mean()), interval=interval(spread.mean(axis=0)))}
    for level in COUNT_TIOU:
        column = _column(level)
        metrics[f"ap@{level}"] = Metric(value=float(values[column]), interval=interval(spread[column]))
    return metrics


def _column(level: float) -> int:
    return int(np.argmin(np.abs(MAP_TIOU - level)))
