"""Scores that look at no video, or at no query: what a head must beat in every row."""

from collections.abc import Sequence

import numpy as np

from qle.eval.floors import NUM_BINS, Priors
from qle.eval.rows.scored import RowTable, ScoredQuery


def position_scores(table: RowTable, priors: Priors) -> np.ndarray:
    """(rows,) float64: the position histogram at the middle of each row."""
    begin, length = table.start_s[table.first[:-1]], table.end_s[table.first[1:] - 1] - table.start_s[table.first[:-1]]
    middle = (table.start_s + table.end_s) / 2 - begin[table.owner]
    relative = middle / np.where(length > 0, length, 1)[table.owner]
    bins = np.clip((relative * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    return np.asarray(np.asarray(priors.position)[bins])


def query_rate_scores(table: RowTable, scored: Sequence[ScoredQuery], priors: Priors) -> np.ndarray:
    """(rows,) float64: how often this query happens in training; the base rate for queries that training hardly knows."""
    rates = [priors.query_rates.get(query.annotation.concept_key, priors.base_rate) for query in scored]
    return np.asarray(np.array(rates)[table.owner])


def query_blind_scores(table: RowTable, probability: np.ndarray) -> np.ndarray:
    """(rows,) float32: each row's mean over the pairs of its video. Of a video with one query this is the head itself.

    Pairs of a video must have the same rows, as those that `score_annotations` makes have.
    """
    blind = np.empty_like(probability)
    slices = table.slices()
    for pairs in np.split(np.argsort(table.video, kind="stable"), np.cumsum(np.bincount(table.video))[:-1]):
        same = {slices[k].stop - slices[k].start for k in pairs}
        if len(same) != 1:
            raise ValueError(
                f"tracks of {table.videos[table.video[pairs[0]]]!r} have {sorted(same)} rows: expected one number"
            )
        mean = np.mean([probability[slices[k]] for k in pairs], axis=0, dtype=np.float64)
        for k in pairs:
            blind[slices[k]] = mean
    return blind
