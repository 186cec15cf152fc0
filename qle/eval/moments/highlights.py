"""Highlights: are the clips that people liked scored high? Average precision a rater, HIT@1, top-5 precision. numpy only.

    scores (queries, clips) + ratings (queries, clips, raters) -> a number a query and rater

Queries of one call have equally many clips; `by_length` groups those that do not. The average precision is that of
QVHighlights, which is none of the usual: equal scores are one step; at each step precision is the best of this and all lower
thresholds; the value is the plain mean over steps that hold a positive clip, however many they hold.
"""

from collections.abc import Sequence

import numpy as np

LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""The least rating (0 to 4) of a positive clip."""
TOP_CLIPS = 5
"""The best-scored clips, whose precision TVSum measures."""
MOST_CELLS = 500_000
"""Clips of one group, so that many long videos need no more memory than a few."""


def by_length(lengths: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Numbers of the queries of each length, in order and in pieces of about MOST_CELLS clips."""
    order = np.argsort(lengths, kind="stable")
    pieces = []
    for same in np.split(order, np.flatnonzero(np.diff(np.asarray(lengths)[order])) + 1) if len(order) else []:
        step = max(1, MOST_CELLS // max(1, int(lengths[same[0]])))
        pieces += [same[first : first + step] for first in range(0, len(same), step)]
    return pieces


def clip_average_precision(score: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """(queries, columns): of (queries, clips) and (queries, clips, columns) bool. No positive clip: 0; no other clip: 1.

    Scores may be -inf (clips that nobody scored come last, as one group) but not NaN.
    """
    order = np.argsort(-score, axis=1, kind="stable")
    ordered = np.take_along_axis(score, order, axis=1)
    ends = np.ones(ordered.shape, dtype=bool)
    ends[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    true = np.cumsum(np.take_along_axis(is_positive, order[..., None], axis=1), axis=1, dtype=np.int32)
    at_end = np.where(ends[..., None], true, 0)
    precision = at_end / np.arange(1, score.shape[1] + 1)[:, None]
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    before = np.zeros_like(at_end)
    np.maximum.accumulate(at_end[:, :-1], axis=1, out=before[:, 1:])
    is_step = at_end > before
    return np.asarray((best * is_step).sum(axis=1) / np.maximum(is_step.sum(axis=1), 1))


def top_clips_precision(score: np.ndarray, ratings: np.ndarray, top: int = TOP_CLIPS) -> np.ndarray:
    """(raters,): of one video, (clips,) scores and (clips, raters) ratings, as TVSum is measured.

    A clip is positive for a rater who gave more than their (lower) median. Precision over recall among the `top` best clips,
    by trapezoids that begin at precision 1; 0 where none of them is positive.
    """
    median = np.sort(ratings, axis=0)[(len(ratings) - 1) // 2]
    chosen = np.argsort(-score, kind="stable")[:top]
    positive = (ratings[chosen] > median).astype(np.float64)
    true = np.cumsum(positive, axis=0)
    precision = true / np.arange(1, len(chosen) + 1)[:, None]
    before = np.concatenate([np.ones((1, ratings.shape[1])), precision[:-1]])
    total = true[-1]
    return np.asarray((positive * (before + precision) / 2).sum(axis=0) / np.where(total > 0, total, 1))
