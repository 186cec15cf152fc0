"""Ranked spans: the constants that turn what a moment head says into moments. No torch.

    candidates of all windows -> merged over windows -> calibrated -> clipped, rounded -> suppressed -> best first

`rank` is what benchmarks measure: every span that a head gives, overlapping ones too, up to `max_moments`. `shown` is what
people read: of spans that overlap heavily one, and none below the threshold that validation has chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qle.errors import ConfigError
from qle.segments.ranked_windows import merged
from qle.segments.spans import pair_iou
from qle.segments.tracks import Localization, sigmoid
from qle.segments.tracks import probability_of as track_probability
from qle.types import Moment, ScoreTrack

SAME_TIOU = 0.5
"""Spans of different windows that overlap at least so much are one moment, seen twice."""
SHOWN_TIOU = 0.7
"""People are shown the best of spans that overlap more than this."""
LEAST_S = 0.01
"""A span that is shorter is widened to this: times are written in milliseconds, and one without length is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Fitted on validation data, stored in the run."""

    temperature: float = 1.0
    """Probability of a span = sigmoid(logit / temperature + bias)."""
    bias: float = 0.0
    presence_scale: float = 1.0
    """Presence = sigmoid(presence_scale * highest logit + presence_bias)."""
    presence_bias: float = 0.0
    nms_tiou: float = 1.0
    """The better of two spans that overlap more than this stays; 1: all stay, as benchmarks want them. Spans of
    different windows of one video are always merged."""
    round_s: float = 0.0
    """Ends become multiples of this (published: the length of a clip); 0: as they are."""
    max_moments: int = 10
    """In a stretch as long as a window: of a video that needs several windows there may be as many times more."""
    threshold: float = 0.0
    """People are shown spans from this probability on (`shown`); benchmarks get all."""
    saliency_temperature: float = 1.0
    """Probability that a clip lies in a moment = sigmoid(saliency / saliency_temperature + saliency_bias)."""
    saliency_bias: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"ranking.{name} = {getattr(self, name)}: expected a finite number")
        if self.temperature <= 0 or not 0 < self.nms_tiou <= 1 or self.round_s < 0 or self.max_moments < 1:
            raise ConfigError(
                f"ranking: expected temperature > 0, 0 < nms_tiou <= 1, round_s >= 0, max_moments >= 1, got {self}"
            )
        if self.saliency_temperature <= 0 or not 0 <= self.threshold <= 1:
            raise ConfigError(f"ranking: expected saliency_temperature > 0 and 0 <= threshold <= 1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a head says about one query in one video, of all windows, before anything is cut."""

    start_s: np.ndarray
    """(candidates,) float64, seconds from the beginning of the video."""
    end_s: np.ndarray
    logit: np.ndarray
    """(candidates,) float64: log-odds, before calibration."""
    window: np.ndarray
    """(candidates,) int64: which window of the video said so."""
    track: ScoreTrack
    """Saliency of every clip."""
    duration_s: float
    windows_s: np.ndarray | None = None
    """(windows, 2) float64: the stretch that each window has seen, in order of time. None: one, which saw all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedSpans:
    """Moments as arrays, best first."""

    start_s: np.ndarray
    end_s: np.ndarray
    score: np.ndarray
    """(spans,) float64 in [0, 1], falling."""


def rank(candidates: Candidates, ranking: Ranking) -> tuple[Moment, ...]:
    """Calibrated, merged over windows, clipped to the video, rounded, best first, never empty."""
    return _moments(ranked_spans(candidates, ranking))


def shown_moments(candidates: Candidates, ranking: Ranking) -> tuple[Moment, ...]:
    """What people are told: the ranked spans without those that repeat a better one or are less sure than the threshold.

    Empty where none is sure enough, or the words of the query mean nothing to the run; `rank(...)[0]` is then the best guess.
    """
    if candidates.track.familiarity is not None and candidates.track.familiarity.is_outside:
        return ()
    fewer = replace(ranking, nms_tiou=min(ranking.nms_tiou, SHOWN_TIOU))
    return tuple(moment for moment in rank(candidates, fewer) if moment.score >= ranking.threshold)


def presence_of(candidates: Candidates, ranking: Ranking) -> float:
    """Probability in [0, 1] that the query happens anywhere in the video, no more than its words can be understood."""
    if not len(candidates.logit):
        return 0.0
    presence = float(sigmoid(ranking.presence_scale * candidates.logit.max() + ranking.presence_bias))
    familiarity = candidates.track.familiarity
    return presence if familiarity is None else presence * familiarity.probability


def probability_of(track: ScoreTrack, ranking: Ranking) -> np.ndarray:
    """(clips,) float32 in [0, 1]: the calibrated saliency. Saliency itself has no unit and no zero."""
    return track_probability(track, Localization(temperature=ranking.saliency_temperature, bias=ranking.saliency_bias))


def ranked_spans(candidates: Candidates, ranking: Ranking) -> RankedSpans:
    """The same as `rank`, for many lists at once: evaluation ranks thousands of queries."""
    if not len(candidates.logit):
        whole = np.array([0.0, candidates.duration_s])
        return RankedSpans(start_s=whole[:1], end_s=whole[1:], score=np.zeros(1))
    # Logarithms of probabilities: in them two spans that are almost certain still differ, so that none of them tie.
    log_odds = candidates.logit / ranking.temperature + ranking.bias
    log_probability = -np.logaddexp(0.0, -log_odds)
    start_s, end_s, window = candidates.start_s, candidates.end_s, candidates.window
    most = ranking.max_moments
    if candidates.windows_s is not None and len(candidates.windows_s) > 1:
        most *= math.ceil(candidates.duration_s / np.diff(candidates.windows_s).max() - 1e-6)
        spans = merged(start_s, end_s, log_probability, window, candidates.windows_s)
        start_s, end_s, log_probability, window = spans.start_s, spans.end_s, spans.log_probability, spans.window
    start_s, end_s = within(start_s, end_s, candidates.duration_s, ranking.round_s)
    order = np.argsort(-log_probability, kind="stable")
    kept = suppress(start_s[order], end_s[order], window[order], ranking.nms_tiou, most)
    chosen = order[kept]
    return RankedSpans(start_s=start_s[chosen], end_s=end_s[chosen], score=np.exp(log_probability[chosen]))


def within(start_s: np.ndarray, end_s: np.ndarray, duration_s: float, round_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Clipped to the video and rounded; a span that would lose its length takes in the multiples around it."""
    least_s = min(LEAST_S, duration_s)
    start_s = np.clip(start_s, 0.0, duration_s - least_s)
    end_s = np.clip(end_s, start_s + least_s, duration_s)
    if round_s <= 0:
        return start_s, end_s
    first, last = np.rint(start_s / round_s), np.rint(end_s / round_s)
    is_lost = (last <= first) | (first * round_s >= duration_s)
    first = np.where(is_lost, np.floor(start_s / round_s), first)
    last = np.where(is_lost, np.maximum(np.ceil(end_s / round_s), first + 1), last)
    return np.minimum(first * round_s, duration_s), np.minimum(last * round_s, duration_s)


def suppress(start_s: np.ndarray, end_s: np.ndarray, window: np.ndarray, nms_tiou: float, most: int) -> np.ndarray:
    """Places of the spans that stay, of spans that come best first: at most `most`.

    A span goes where a better one of its own window overlaps it by more than `nms_tiou`, or one of another window by
    `SAME_TIOU` or more: then both windows saw one moment.
    """
    if nms_tiou >= 1 and (len(window) < 2 or bool((window == window[0]).all())):
        return np.arange(min(most, len(start_s)))
    kept: list[int] = []
    for number in range(len(start_s)):
        if kept:
            overlap = pair_iou(start_s[kept], end_s[kept], start_s[number], end_s[number])
            is_other = window[kept] != window[number]
            if bool(np.any((overlap > nms_tiou) | (is_other & (overlap >= SAME_TIOU)))):
                continue
        kept.append(number)
        if len(kept) == most:
            break
    return np.array(kept, np.int64)


def _moments(spans: RankedSpans) -> tuple[Moment, ...]:
    rows: Sequence[tuple[float, float, float]] = list(
        zip(spans.start_s.tolist(), spans.end_s.tolist(), spans.score.tolist(), strict=True)
    )
    return tuple(Moment(start_s=start, end_s=end, score=score) for start, end, score in rows)
