"""The frame protocol: is each row scored high when the query happens in it? Pooled over all rows, and macro over pairs.

A *decision* is "the probability is at least the stored threshold". Rows that are not usable are not measured.
"""

from dataclasses import dataclass

import numpy as np

from qle.eval.bootstrap import drawn, histograms, interval, mean_draws
from qle.eval.ranking import auroc, average_precision, count, f1, mean_known, rank
from qle.eval.report import Metric
from qle.eval.rows.scored import RowTable

NAMES = ("auroc", "ap", "f1", "macro_auroc", "macro_ap", "macro_f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScores:
    """One way to score the rows: the head's, or a floor's."""

    score: np.ndarray
    """(rows,), any monotone scale."""
    decision: np.ndarray
    """(rows,) bool"""


def frame_metrics(table: RowTable, scores: FrameScores, draws: np.ndarray | None) -> dict[str, Metric]:
    """All of NAMES. Intervals where there are `draws` (resamples, videos)."""
    rows = table.usable
    label, video = table.label[rows], table.video[table.owner[rows]]
    ranking = rank(scores.score[rows])
    counts = count(ranking, label)
    sums = _decision_sums(table, scores.decision)
    video_sums = np.stack([np.bincount(table.video, weights=part) for part in sums])
    macro = pair_metrics(table, scores.score, sums)
    pooled = (auroc(counts), average_precision(counts), f1(*video_sums.sum(axis=1)))
    values = [*map(float, pooled), *map(mean_known, macro)]
    if draws is None:
        return {name: Metric(value=value) for name, value in zip(NAMES, values, strict=True)}
    redrawn = drawn(draws, histograms(ranking, label, video, len(table.videos)))
    spread = [
        auroc(redrawn),
        average_precision(redrawn),
        f1(*(draws @ part for part in video_sums)),
        *(mean_draws(draws, part, table.video) for part in macro),
    ]
    return {
        name: Metric(value=value, interval=interval(some))
        for name, value, some in zip(NAMES, values, spread, strict=True)
    }


def pair_metrics(table: RowTable, score: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(3, pairs): AUROC, AP, F1 of each pair; NaN where the query never, or always, happens."""
    metrics = np.full((3, table.num_pairs), np.nan)
    for pair, rows in enumerate(table.slices()):
        label = table.label[rows][table.usable[rows]]
        if label.any() and not label.all():
            counts = count(rank(score[rows][table.usable[rows]]), label)
            metrics[:, pair] = auroc(counts), average_precision(counts), f1(*sums[:, pair])
    return metrics


def _decision_sums(table: RowTable, decision: np.ndarray) -> np.ndarray:
    """(3, pairs): rows decided rightly as relevant, decided as relevant, relevant."""
    decided, label = decision & table.usable, table.label & table.usable
    parts = (decided & label, decided, label)
    return np.stack([np.add.reduceat(part.astype(np.float64), table.first[:-1]) for part in parts])
