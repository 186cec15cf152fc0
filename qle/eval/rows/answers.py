"""Who is measured: the head, and each floor as if it were a head. Scores of rows, moments, a presence.

Scores enter, `Answers` leave; evaluate.py then measures all of them with the same functions, so that a floor cannot be measured
more kindly than a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qle.eval.floors import Priors
from qle.eval.rows.floors import position_scores, query_blind_scores, query_rate_scores
from qle.eval.rows.frames import FrameScores
from qle.eval.rows.scored import (
    RowTable,
    ScoredQuery,
    cut_rows,
    presences,
    probabilities,
    scaled,
    smoothed_logits,
    where_present,
    with_guesses,
)
from qle.eval.rows.segments import SegmentScores
from qle.segments.tracks import Localization, Spans, calibrated


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that somebody says about the pairs."""

    frame: FrameScores
    segment: SegmentScores
    log_odds: np.ndarray
    """(rows,): calibrated."""
    presence: np.ndarray
    """(pairs,): any scale for a floor."""
    has_moment: np.ndarray
    """(pairs,) bool"""


def head_answers(scored: Sequence[ScoredQuery], table: RowTable, localization: Localization) -> Answers:
    logit = smoothed_logits(scored, localization.smoothing_s)
    log_odds = calibrated(logit, localization)
    probability = probabilities(log_odds)
    presence = presences(scored, table.peak(logit), localization)
    spans = scaled(cut_rows(table, probability, localization), presence, localization)
    told = where_present(spans, presence, localization)
    return Answers(
        frame=FrameScores(score=logit, decision=probability >= np.float32(localization.threshold)),
        segment=SegmentScores(spans=told, answered=with_guesses(table, spans, log_odds)),
        log_odds=log_odds,
        presence=presence,
        has_moment=_has_moment(told, table),
    )


def floor_answers(
    scored: Sequence[ScoredQuery],
    table: RowTable,
    log_odds: np.ndarray,
    localization: Localization,
    priors: Priors | None,
) -> dict[str, Answers]:
    floors = {"constant": _constant(table, priors)}
    if priors is not None:
        floors["position"] = _position(table, priors)
        floors["query_rate"] = _query_rate(scored, table, priors)
    if len(table.videos) < table.num_pairs:  # with one query a video, the mean over its queries is the head itself
        floors["query_blind"] = _query_blind(table, log_odds, localization)
    return floors


def _constant(table: RowTable, priors: Priors | None) -> Answers:
    """The whole video for every query. To reject all is what a constant can do for rejection."""
    rows = len(table.owner)
    return Answers(
        frame=FrameScores(score=np.zeros(rows, np.float32), decision=np.ones(rows, dtype=bool)),
        segment=_same_span(table, 0.0, 1.0),
        log_odds=_log_odds(np.full(rows, 0.5 if priors is None else priors.base_rate)),
        presence=np.zeros(table.num_pairs),
        has_moment=np.ones(table.num_pairs, dtype=bool),
    )


def _position(table: RowTable, priors: Priors) -> Answers:
    score = position_scores(table, priors)
    constant = _constant(table, priors)
    return replace(
        constant,
        frame=FrameScores(score=score, decision=score >= priors.position_threshold),
        segment=_same_span(table, *priors.span),
        log_odds=_log_odds(score),
    )


def _query_rate(scored: Sequence[ScoredQuery], table: RowTable, priors: Priors) -> Answers:
    """Queries that happen more often than the mean are called relevant throughout."""
    score = query_rate_scores(table, scored, priors)
    first = score[table.first[:-1]]
    return Answers(
        frame=FrameScores(score=score, decision=score >= priors.base_rate),
        segment=_same_span(table, 0.0, 1.0, first),
        log_odds=_log_odds(score),
        presence=first,
        has_moment=first >= priors.base_rate,
    )


def _query_blind(table: RowTable, log_odds: np.ndarray, localization: Localization) -> Answers:
    probability = query_blind_scores(table, probabilities(log_odds))
    spans = cut_rows(table, probability, localization)
    blind = _log_odds(probability)
    return Answers(
        frame=FrameScores(score=probability, decision=probability >= np.float32(localization.threshold)),
        segment=SegmentScores(spans=spans, answered=with_guesses(table, spans, blind)),
        log_odds=blind,
        presence=np.maximum(table.peak(probability), 0.0),
        has_moment=_has_moment(spans, table),
    )


def _same_span(table: RowTable, begin: float, stop: float, score: np.ndarray | None = None) -> SegmentScores:
    """The same part of each video, equally sure of all unless there is a score (pairs,)."""
    start, end = table.start_s[table.first[:-1]], table.end_s[table.first[1:] - 1]
    spans = Spans(
        owner=np.arange(table.num_pairs),
        start_s=start + begin * (end - start),
        end_s=start + stop * (end - start),
        score=np.ones(table.num_pairs) if score is None else score,
    )
    return SegmentScores(spans=spans, answered=spans)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    """Kept inside the range of float32 probabilities, so that a floor that is sure and wrong loses no infinite sum."""
    inside = np.clip(np.asarray(probability, dtype=np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _has_moment(spans: Spans, table: RowTable) -> np.ndarray:
    return np.bincount(spans.owner, minlength=table.num_pairs) > 0
