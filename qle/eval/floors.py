"""What can be had without looking: the floors that stand beside each number.

    constant      the same score everywhere; as moments: the whole video
    position      how often anything happens at that relative time in the training annotations; as a moment: the one span,
                  relative to the length, that is right most often there
    query rate    how often this query happens at all in the training annotations, whatever the video (blind to the picture)
    query-blind   the head's own probability, averaged over all queries that are asked of the video (deaf to the query)

A head is worth what it has above the highest of them. Floors are scores like any other and go through the same metrics.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qle.data.annotations import Annotation, Window
from qle.errors import CheckpointError
from qle.segments.spans import pair_iou, window_cover

NUM_BINS = 100
"""Bins of relative time."""
SPAN_STEPS = 20
"""Spans begin and end at multiples of a twentieth of the video."""
MOST_QUERY_RATES = 1000
"""Kept in a run, of the most frequent queries."""
RARE_QUERY = 5
"""A query asked less often than this in training has no rate of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """What training annotations tell about any video of their kind. Stored in the run as JSON."""

    position: tuple[float, ...]
    """Relevance at each hundredth of a video: the mean over annotations, absent queries included."""
    position_threshold: float
    """Where `position` cut off gives the best F1 on the training annotations themselves."""
    base_rate: float
    """Mean of `position`: the chance that a query happens at a random time of a random video."""
    span: tuple[float, float]
    """Beginning and end, in parts of the video: right (tIoU >= 0.5) for the most present queries."""
    query_rates: Mapping[str, float]
    """concept -> part of the time that it happens, of the frequent ones."""
    num_annotations: int
    num_without_duration: int
    """Left out, since relative time needs the length of the video."""
    concepts: tuple[str, ...] = ()
    """Fingerprints of all concepts that were trained on, and below of all videos: what is not among them is new to the head."""
    videos: tuple[str, ...] = ()
    val_videos: tuple[str, ...] = ()
    """Likewise of the videos that chose the step and the thresholds."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "query_rates": dict(self.query_rates)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Priors":
        """CheckpointError where the keys are not ours."""
        try:
            lists = {name: tuple(value[name]) for name in ("position", "span", "concepts", "videos")}
            return cls(**{**value, **lists, "val_videos": tuple(value.get("val_videos", ()))})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"priors of the run: {error}; expected the fields {', '.join(cls.__slots__)}"
            ) from error


def priors_of(
    annotations: Sequence[Annotation],
    durations_s: Mapping[str, float] | None = None,
    *,
    val: Sequence[Annotation] = (),
    keys: Mapping[str, str] | None = None,
) -> Priors:
    """What can be guessed from labelled annotations, without looking at any video.

    durations_s: lengths by `annotation.video`, where the annotations do not say how long videos are. Nothing is learned from
    `val` but which videos it has. keys: keys in the cache, by `annotation.video`.
    """
    lengths = [annotation.duration_s or (durations_s or {}).get(annotation.video) for annotation in annotations]
    known = [
        (annotation, length or 1.0)
        for annotation, length in zip(annotations, lengths, strict=True)
        if annotation.is_labelled and (length or annotation.is_absent)
    ]
    grid = np.linspace(0, 1, NUM_BINS + 1)
    covers = [window_cover(annotation.windows, grid * length) for annotation, length in known] or [np.zeros(NUM_BINS)]
    position = np.mean(covers, axis=0)
    return Priors(
        position=tuple(position.tolist()),
        position_threshold=_best_threshold(position),
        base_rate=float(position.mean()),
        span=best_span([(annotation.windows, length) for annotation, length in known]),
        query_rates=_query_rates(
            [annotation.concept_key for annotation, _ in known], [float(cover.mean()) for cover in covers]
        ),
        num_annotations=len(known),
        num_without_duration=sum(annotation.is_labelled for annotation in annotations) - len(known),
        concepts=tuple(
            sorted({_fingerprint(annotation.concept_key) for annotation in annotations if annotation.is_labelled})
        ),
        videos=_video_fingerprints(annotations, keys or {}),
        val_videos=_video_fingerprints(val, keys or {}),
    )


def _video_fingerprints(annotations: Sequence[Annotation], keys: Mapping[str, str]) -> tuple[str, ...]:
    """Under both names, since another annotation file may call the same video otherwise."""
    names = {annotation.video for annotation in annotations if annotation.is_labelled}
    return tuple(sorted({_fingerprint(name) for name in names | {keys.get(name, name) for name in names}}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """How much of an evaluation is new to a run."""

    zero_shot: bool
    """Neither a video nor a concept was trained on: another data set, and the numbers are of transfer."""
    num_trained_videos: int
    """Evaluated videos that were trained on: any at all makes the numbers too hopeful."""
    num_val_videos: int
    """Evaluated videos that the step and the thresholds were chosen on: they too."""
    unseen_concepts: float
    """Part of the annotations whose concept was not trained on."""


def novelty(annotations: Sequence[Annotation], priors: Priors, keys: Mapping[str, str] | None = None) -> Novelty:
    """Concepts are compared by the names that both annotation files give them, videos by these and by `keys` of the cache."""
    concepts = set(priors.concepts)
    unseen = [_fingerprint(annotation.concept_key) not in concepts for annotation in annotations]
    names = {
        annotation.video: {annotation.video, (keys or {}).get(annotation.video, annotation.video)}
        for annotation in annotations
    }
    seen = [{_fingerprint(name) for name in both} for both in names.values()]
    num_trained, num_val = (
        sum(not both.isdisjoint(known) for both in seen) for known in (priors.videos, priors.val_videos)
    )
    return Novelty(
        zero_shot=all(unseen) and not num_trained and not num_val,
        num_trained_videos=num_trained,
        num_val_videos=num_val,
        unseen_concepts=float(np.mean(unseen)) if unseen else 0.0,
    )


def _fingerprint(text: str) -> str:
    """Short, since a run may have seen ten thousand sentences; one in four billion is confused with another."""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _best_threshold(position: np.ndarray) -> float:
    """Rows at or above it are called relevant: F1 = 2 * sum of their relevance / (how many + sum of all relevance)."""
    ordered = np.sort(position)[::-1]
    expected_f1 = 2 * np.cumsum(ordered) / (np.arange(1, len(ordered) + 1) + ordered.sum())
    return float(ordered[np.argmax(expected_f1)])


def best_span(known: Sequence[tuple[Sequence[Window], float]]) -> tuple[float, float]:
    """The one span that is right most often (tIoU >= 0.5), its beginning and end as fractions of a video.

    Enters for each query: its windows, and the length of its video. Where no query has a window it is the whole video. Mean
    tIoU decides between spans that are right equally often.
    """
    present = [(windows, length) for windows, length in known if windows]
    if not present:
        return 0.0, 1.0
    windows = np.concatenate([np.array(some, dtype=np.float64) / length for some, length in present])
    first = np.cumsum([0] + [len(some) for some, _ in present[:-1]])
    start, end = np.triu_indices(SPAN_STEPS + 1, k=1)
    best, best_value = (0.0, 1.0), -1.0
    for begin, stop in zip(start / SPAN_STEPS, end / SPAN_STEPS, strict=True):
        overlap = np.maximum.reduceat(pair_iou(begin, stop, windows[:, 0], windows[:, 1]), first)
        value = float(np.mean(overlap >= 0.5) + 1e-6 * np.mean(overlap))
        if value > best_value:
            best, best_value = (float(begin), float(stop)), value
    return best


def _query_rates(concepts: Sequence[str], rates: Sequence[float]) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for concept, rate in zip(concepts, rates, strict=False):
        sums.setdefault(concept, []).append(rate)
    frequent = sorted(
        (name for name in sums if len(sums[name]) >= RARE_QUERY), key=lambda name: (-len(sums[name]), name)
    )
    return {name: float(np.mean(sums[name])) for name in frequent[:MOST_QUERY_RATES]}


# Floors as scores of rows
