"""Answers about moments to numbers of every pair: R1 and R5, mAP, mIoU, classes of length; highlights. No thresholds are fitted.

    MomentTable + MomentAnswers -> {"moments": {name: (pairs,)}, "highlights": {name: (pairs,)}}

A pair that takes no part in a number (an absent query, no target of that length, nobody rated) is NaN there. The mAP is that of
QVHighlights: of each query's own list, at overlaps 0.5 to 0.95.
"""

import numpy as np

from qle.eval.moments.answers import MomentAnswers, MomentTable
from qle.eval.moments.detection import BENCHMARK_TIOU, hits, list_average_precision, overlaps, part_of
from qle.eval.moments.highlights import LEVELS, by_length, clip_average_precision, top_clips_precision
from qle.eval.windows import RANK1_TIOU, TIOU_SLACK, Windows, share_at_least

RECALL_DEPTHS = (1, 5)
CLASSES = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, np.inf)}
"""Lengths of targets in seconds, above the first and at most the second."""
MOST_LEVEL_RATERS = 3
"""More raters than this are measured as in TVSum, each against their own median."""

Values = dict[str, np.ndarray]


def moment_values(table: MomentTable, answers: MomentAnswers) -> Values:
    """Numbers of all present queries: first with all of their targets, then with those of each class of length."""
    overlap = overlaps(answers.lists, table.windows)
    values_of = _class_values(overlap, table.windows, RANK1_TIOU, RECALL_DEPTHS)
    for name in CLASSES:
        chosen = in_class(table.windows, name)
        values = _class_values(overlap[chosen], part_of(table.windows, chosen), (0.5,), (1,))
        values_of |= {f"{name}_{key}": values[key] for key in ("map", "r1@0.5", "miou")}
    return values_of


def in_class(windows: Windows, name: str) -> np.ndarray:
    """(windows,) bool"""
    low, high = CLASSES[name]
    length_s = windows.end_s - windows.start_s
    return np.asarray((low < length_s) & (length_s <= high))


def _class_values(
    overlap: np.ndarray, windows: Windows, recall_tiou: tuple[float, ...], depths: tuple[int, ...]
) -> Values:
    """`overlap`: (windows, ranks)."""
    precision = list_average_precision(hits(overlap, windows, BENCHMARK_TIOU - TIOU_SLACK), windows.counts)
    best = best_so_far(overlap, windows)
    recall = {
        f"r{depth}@{level}": share_at_least(best[:, min(depth, best.shape[1]) - 1], level)
        for depth in depths
        for level in recall_tiou
    }
    columns = {level: BENCHMARK_TIOU.tolist().index(level) for level in (0.5, 0.75)}
    at = {f"map@{level}": precision[:, column] for level, column in columns.items()}
    return {**recall, "map": precision.mean(axis=1), **at, "miou": best[:, 0]}


def best_so_far(overlap: np.ndarray, windows: Windows) -> np.ndarray:
    """(pairs, ranks): the highest overlap of any of the first spans with any window; NaN without windows."""
    best_overlap = np.full((windows.num_owners, overlap.shape[1]), np.nan)
    if len(windows.owner):
        first = np.flatnonzero(np.diff(windows.owner, prepend=-1))
        best = np.maximum.accumulate(np.maximum.reduceat(np.maximum(overlap, 0.0), first), axis=1)
        best_overlap[windows.owner[first]] = best
    return best_overlap


def highlight_values(table: MomentTable, answers: MomentAnswers) -> Values:
    """Numbers of all rated pairs; empty where there are none."""
    raters = np.array([_ratings(table, number).shape[1] for number in table.rated.tolist()], dtype=np.int64)
    values: Values = {}
    few, many = np.flatnonzero(raters <= MOST_LEVEL_RATERS), np.flatnonzero(raters > MOST_LEVEL_RATERS)
    if len(few):
        values |= _level_values(table, answers, few)
    if len(many):
        values["top5_map"] = np.full(table.num_pairs, np.nan)
        for index in many.tolist():
            number = int(table.rated[index])
            ratings = np.nan_to_num(_ratings(table, number))
            values["top5_map"][number] = top_clips_precision(answers.clip_scores[index], ratings).mean()
    return values


def _level_values(table: MomentTable, answers: MomentAnswers, rated_index: np.ndarray) -> Values:
    """mAP and HIT@1 of each level; `rated_index`: numbers among the rated pairs."""
    names = {level: level.lower().replace("verygood", "very_good") for level in LEVELS}
    values = {f"{name}_{kind}": np.full(table.num_pairs, np.nan) for name in names.values() for kind in ("map", "hit1")}
    numbers = table.rated[rated_index]
    shapes = np.array([_ratings(table, number).shape for number in numbers.tolist()], dtype=np.int64)
    for group in by_length(shapes[:, 0] * (MOST_LEVEL_RATERS + 1) + shapes[:, 1]):
        own = numbers[group]
        score = np.stack([answers.clip_scores[index] for index in rated_index[group].tolist()])
        ratings = np.nan_to_num(np.stack([_ratings(table, number) for number in own.tolist()]))
        is_best = score == score.max(axis=1, keepdims=True)
        for level, least in LEVELS.items():
            positive = ratings >= least
            values[f"{names[level]}_map"][own] = clip_average_precision(score, positive).mean(axis=1)
            # Of several best clips any may be the one that is shown.
            liked = (positive.any(axis=2) & is_best).sum(axis=1)
            values[f"{names[level]}_hit1"][own] = liked / is_best.sum(axis=1)
    return values


def _ratings(table: MomentTable, number: int) -> np.ndarray:
    ratings = table.annotations[number].saliency
    if ratings is None:
        raise ValueError(f"pair {number} has no ratings")
    return ratings
