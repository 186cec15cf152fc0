"""Which texts are true of which videos: every (video, query) that is not known to be absent. No torch.

    annotations by video -> PairTable -> training (data/retrieval/loader.py), evaluation (eval/retrieval.py)

When something happens does not matter here, only that it does: captions that nobody has labelled with times are pairs too.
The same concept may be true of several videos, which are then no negatives of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qle.data.annotations import Annotation
from qle.data.negatives import united_concepts
from qle.errors import AnnotationError


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """Texts and videos by number. A text that a video is annotated with several times stands once."""

    videos: tuple[str, ...]
    """Keys in the cache, sorted; those that no text is true of as well."""
    queries: tuple[str, ...]
    """Distinct texts."""
    video: np.ndarray
    """(pairs,) int64, video after video"""
    query: np.ndarray
    """(pairs,) int64"""
    concept: np.ndarray
    """(pairs,) int64: texts with the same concept mean the same."""

    def __len__(self) -> int:
        return len(self.video)

    @cached_property
    def described(self) -> np.ndarray:
        """Numbers of the videos that some text is true of."""
        return np.unique(self.video)

    @cached_property
    def _true(self) -> tuple[np.ndarray, np.ndarray]:
        """(concepts + 1,) int64 where the videos of each concept begin, and (true,) int64 those videos. A table of all concepts
        and videos would take gigabytes: 180,000 captions are true of one video each."""
        concept, video = np.unique(np.stack([self.concept, self.video]), axis=1)
        return np.searchsorted(concept, np.arange(self.concept.max(initial=-1) + 2)), video

    def is_true(self, pairs: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """(pairs, videos) bool: the text of the pair is known to be true of the video. No video twice."""
        begin, true_of = self._true
        first, count = begin[self.concept[pairs]], np.diff(begin)[self.concept[pairs]]
        row = np.repeat(np.arange(len(pairs)), count)
        column = np.full(len(self.videos), -1, dtype=np.int64)
        column[videos] = np.arange(len(videos))
        position = column[true_of[np.arange(len(row)) + np.repeat(first - np.cumsum(count) + count, count)]]
        is_true = np.zeros((len(pairs), len(videos)), dtype=bool)
        is_true[row[position >= 0], position[position >= 0]] = True
        return is_true


def pair_table(by_key: Mapping[str, Sequence[Annotation]]) -> PairTable:
    """AnnotationError where no text is true of any video."""
    keys = tuple(sorted(by_key))
    # United over all videos: a file may name a concept in some rows and not in others.
    flat = [(number, annotation) for number, key in enumerate(keys) for annotation in by_key[key]]
    united = united_concepts([annotation for _, annotation in flat])
    rows = [(number, annotation) for (number, _), annotation in zip(flat, united, strict=True)]
    present = {(number, annotation.concept_key) for number, annotation in rows if annotation.windows}
    absent = {(number, annotation.concept_key) for number, annotation in rows if annotation.is_absent} - present
    queries: dict[str, int] = {}
    concepts: dict[str, int] = {}
    pairs: dict[tuple[int, int], int] = {}
    for number, annotation in rows:
        if (number, annotation.concept_key) not in absent:
            query = queries.setdefault(annotation.query, len(queries))
            pairs[number, query] = concepts.setdefault(annotation.concept_key, len(concepts))
    if not pairs:
        raise AnnotationError(
            f"none of the {len(rows)} annotations says what is in its video: all are of queries that do not happen there"
        )
    video, query = np.array(list(pairs), dtype=np.int64).T
    return PairTable(
        videos=keys,
        queries=tuple(queries),
        video=video,
        query=query,
        concept=np.array(list(pairs.values()), dtype=np.int64),
    )
