"""Validation scores of a moment head to the constants of ranking: calibration of spans and clips, presence, threshold.

    candidates of validation queries + what is true -> Ranking, stored in the run; nothing of it ever sees test data

A span is right where it overlaps a window by tIoU >= 0.5, and its probability is fitted to just that (Platt). The threshold is
the one with the best F1 of right moments among those that people would be shown. What cannot be fitted, because nothing is
right or nothing is wrong, keeps the constant that was given.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qle.eval.logistic import fit_calibration, fit_presence
from qle.eval.moments.ranked import RankedQuery
from qle.segments.ranked import SHOWN_TIOU, Candidates, RankedSpans, Ranking, ranked_spans
from qle.segments.ranked_windows import is_cut
from qle.segments.spans import HALF, iou, mask_of


def fit_ranking(ranked: Sequence[RankedQuery], ranking: Ranking) -> Ranking:
    """Temperature, bias, presence, threshold and those of the saliency; the rest as given."""
    labelled = [query for query in ranked if query.annotation.is_labelled and len(query.candidates.logit)]
    if not labelled:
        return ranking
    fitted = _fit_saliency(labelled, _fit_spans(labelled, ranking))
    peak = np.array([query.candidates.logit.max() for query in labelled])
    is_present = [query.annotation.is_present for query in labelled]
    if any(is_present):
        scale, bias = fit_presence(peak, is_present, fitted.temperature, fitted.bias)
        fitted = replace(fitted, presence_scale=scale, presence_bias=bias)
    return _fit_threshold(labelled, fitted)


def _fit_spans(ranked: Sequence[RankedQuery], ranking: Ranking) -> Ranking:
    """Views that a border of their window cuts are left out where there are others: ranking treats them on their own."""
    logit = np.concatenate([query.candidates.logit for query in ranked]).astype(np.float64)
    label = np.concatenate([_is_right(query) for query in ranked])
    is_whole = np.concatenate([~_is_cut(query.candidates) for query in ranked])
    if is_whole.any() and _both(label[is_whole]):
        logit, label = logit[is_whole], label[is_whole]
    if not _both(label):
        return ranking
    temperature, bias = fit_calibration(logit, label, np.ones(len(logit)))
    return replace(ranking, temperature=temperature, bias=bias)


def _fit_saliency(ranked: Sequence[RankedQuery], ranking: Ranking) -> Ranking:
    """A clip counts by its seconds."""
    tracks = [query.candidates.track for query in ranked]
    usable = np.concatenate([track.valid & np.isfinite(track.logit) for track in tracks])
    seconds = np.concatenate([np.diff(track.edges_s) for track in tracks])
    usable &= seconds > 0
    label = np.concatenate([mask_of(query.annotation.windows, query.candidates.track.edges_s) for query in ranked])[
        usable
    ]
    if not _both(label):
        return ranking
    weight = seconds[usable] / seconds[usable].mean()
    logit = np.concatenate([track.logit for track in tracks])[usable].astype(np.float64)
    temperature, bias = fit_calibration(logit, label, weight)
    return replace(ranking, saliency_temperature=temperature, saliency_bias=bias)


def _fit_threshold(ranked: Sequence[RankedQuery], ranking: Ranking) -> Ranking:
    """Half way between the last score that is worth showing and the next one."""
    shown = replace(ranking, nms_tiou=min(ranking.nms_tiou, SHOWN_TIOU))
    spans = [ranked_spans(query.candidates, shown) for query in ranked]
    score = np.concatenate([spans_of_query.score for spans_of_query in spans])
    is_hit = np.concatenate([_hits(query, spans_of_query) for query, spans_of_query in zip(ranked, spans, strict=True)])
    if not is_hit.any():
        return ranking
    order = np.argsort(-score, kind="stable")
    num_windows = sum(len(query.annotation.windows) for query in ranked)
    f1 = 2 * np.cumsum(is_hit[order]) / (np.arange(1, len(order) + 1) + num_windows)
    # Spans of one score come and go together.
    is_last = np.append(np.diff(score[order]) < 0, True)
    best = int(np.argmax(np.where(is_last, f1, -1.0)))
    following = float(score[order[best + 1]]) if best + 1 < len(order) else 0.0
    return replace(ranking, threshold=(float(score[order[best]]) + following) / 2)


def _is_right(query: RankedQuery) -> np.ndarray:
    spans = np.stack([query.candidates.start_s, query.candidates.end_s], axis=1)
    return np.asarray(iou(spans, np.array(query.annotation.windows)).max(axis=1, initial=0.0) >= HALF)


def _hits(query: RankedQuery, spans: RankedSpans) -> np.ndarray:
    """Best first, each takes the window that it overlaps most of those that no better one has taken. A span's hit hangs on
    better ones alone, so that it is the same for every threshold."""
    overlap = iou(np.stack([spans.start_s, spans.end_s], axis=1), np.array(query.annotation.windows))
    is_hit = np.zeros(len(overlap), bool)
    if not overlap.shape[1]:
        return is_hit
    for rank in range(len(overlap)):
        window = int(np.argmax(overlap[rank]))
        if overlap[rank, window] >= HALF:
            is_hit[rank] = True
            overlap[:, window] = 0.0
    return is_hit


def _is_cut(candidates: Candidates) -> np.ndarray:
    if candidates.windows_s is None or len(candidates.windows_s) < 2:
        return np.zeros(len(candidates.logit), bool)
    starts, ends = is_cut(candidates.start_s, candidates.end_s, candidates.window, candidates.windows_s)
    return np.asarray(starts | ends)


def _both(label: np.ndarray) -> bool:
    return bool(label.any() and not label.all())
