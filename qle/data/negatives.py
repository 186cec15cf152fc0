"""Which queries happen in a stretch of a video, and which surely do not: the questions that a training window is asked.

Annotations of a corpus enter; for a stretch leave the annotations that overlap it (positives) and a sample of those that do
not (negatives). The trap is the false negative, and each rule below is there to avoid one:

* A query is judged by its concept, not by its words: a synonym or a paraphrase of what happens is never a negative (and rows
  are labelled with the windows of every annotation of the concept in that video: data/questions.py).
* A query that the video is annotated with but not labelled for is neither positive nor negative.
* Only where a corpus is labelled exhaustively, or where the user accepts the risk, is a query of another video a negative of
  this one: these sources are called "corpus" and "similar", and they are used when they are named.

Everything is sorted into arrays once; a call then costs microseconds, since an epoch makes some ten thousand of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from qle.data.annotations import Annotation, words_of
from qle.errors import ConfigError

NegativeSource = Literal["window", "absent", "corpus", "similar"]
"""window: happens in this video at another time. absent: labelled as absent from this video. corpus: asked of other videos
only, and not annotated in this one. similar: those of corpus that share a word with what happens in the stretch, such as the
right object in another colour or the same tool from the other side."""

COMMON_SHARE = 0.5
"""Words that stand in more than this share of all concepts ("a", "the") make no two concepts similar."""


@dataclass(frozen=True, slots=True)
class _VideoQueries:
    """One video. Concepts are numbers here."""

    concepts: dict[int, tuple[Annotation, ...]]
    """Every labelled annotation of a concept; none where nobody has said when it happens."""
    present: np.ndarray
    """Concepts that have windows, one entry a window ..."""
    starts_s: np.ndarray
    ends_s: np.ndarray
    absent: np.ndarray
    """Concepts that are labelled and have no window."""
    timed: tuple[Annotation, ...]
    """Annotation of each entry of `present`."""


def united_concepts(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Annotations without a concept take the one that the same words have elsewhere, if that is one only: a file may name it
    in some rows, and the same words must never be asked as what happens and as what does not."""
    annotations = list(annotations)
    named: dict[str, set[str]] = {}
    for annotation in annotations:
        if annotation.concept:
            named.setdefault(words_of(annotation.query), set()).add(annotation.concept)
    concept_of = {words: concepts.pop() for words, concepts in named.items() if len(concepts) == 1}
    return [
        replace(annotation, concept=concept_of[words_of(annotation.query)])
        if not annotation.concept and words_of(annotation.query) in concept_of
        else annotation
        for annotation in annotations
    ]


class QueryPool:
    """The queries of a corpus, sorted for quick questions about (video, stretch)."""

    def __init__(self, annotations_by_video: Mapping[str, Sequence[Annotation]]) -> None:
        self._number: dict[str, int] = {}
        self._wordings: list[list[Annotation]] = []
        self._videos = {video: self._sort(annotations) for video, annotations in annotations_by_video.items()}
        self._by_word: dict[str, list[int]] | None = None
        self._similar: dict[int, tuple[int, ...]] = {}

    def positives(self, video: str, start_s: float, end_s: float) -> list[Annotation]:
        """Annotations of the video with a window that overlaps the stretch, each once, in the order of their windows."""
        queries = self._videos[video]
        overlaps = np.flatnonzero((queries.starts_s < end_s) & (queries.ends_s > start_s))
        return list({id(queries.timed[number]): queries.timed[number] for number in overlaps}.values())

    def negatives(
        self,
        video: str,
        start_s: float,
        end_s: float,
        count: int,
        rng: np.random.Generator,
        sources: Sequence[NegativeSource] = ("window", "absent", "corpus"),
    ) -> list[Annotation]:
        """Up to `count` annotations that do not happen in the stretch, each of another concept; fewer where there are no more.

        An annotation of another video stands for its query and concept. The sources take turns, so that the few hard
        queries (this video, another time) are not lost among the many of other videos; inside a source every concept is
        equally likely, and so is every annotation of it.
        """
        piles = [pile for pile in self._piles(video, start_s, end_s, count, rng, sources) if pile]
        chosen: list[Annotation] = []
        while piles and len(chosen) < count:
            number = int(rng.integers(len(piles)))
            wordings = piles[number].pop()
            chosen.append(wordings[int(rng.integers(len(wordings)))])
            if not piles[number]:
                del piles[number]
        return chosen

    def _piles(
        self, video: str, start_s: float, end_s: float, count: int, rng: np.random.Generator, sources: Sequence[str]
    ) -> list[list[Sequence[Annotation]]]:
        """For each source: wordings of up to `count` concepts in random order."""
        queries = self._videos[video]
        piles: list[list[Sequence[Annotation]]] = []
        for source in sources:
            if source == "corpus":
                piles.append([self._wordings[concept] for concept in self._elsewhere(queries, count, rng)])
                continue
            if source == "similar":
                overlaps = (queries.starts_s < end_s) & (queries.ends_s > start_s)
                happening = sorted(set(queries.present[overlaps].tolist()))
                near = sorted({other for concept in happening for other in self._similar_to(concept)})
                piles.append(
                    [
                        self._wordings[concept]
                        for concept in self._unknown(queries, rng.permutation(near).tolist())[:count]
                    ]
                )
                continue
            if source == "window":
                overlaps = (queries.starts_s < end_s) & (queries.ends_s > start_s)
                # Sets, since for a dozen numbers np.setdiff1d takes ten times as long.
                elsewhere = set(queries.present.tolist()) - set(queries.present[overlaps].tolist())
                concepts = np.array(sorted(elsewhere), dtype=np.int64)
            elif source == "absent":
                concepts = queries.absent
            else:
                raise ConfigError(f"negatives from {source!r}: choose among {', '.join(get_args(NegativeSource))}")
            drawn = rng.permutation(concepts)[:count].tolist()
            piles.append([queries.concepts[concept] for concept in drawn])
        return piles

    def _elsewhere(self, queries: _VideoQueries, count: int, rng: np.random.Generator) -> list[int]:
        """Up to `count` concepts that this video is not annotated with, in random order."""
        num_concepts = len(self._wordings)
        size = min(count + len(queries.concepts), num_concepts)
        if num_concepts > 8 * size:
            # Few of many: numbers drawn anew, repeats left out, are the same as a draw without return, and cost no shuffle.
            drawn = list(dict.fromkeys(rng.integers(num_concepts, size=2 * size).tolist()))
            if len(unknown := self._unknown(queries, drawn)) >= count:
                return unknown[:count]
        return self._unknown(queries, rng.choice(num_concepts, size=size, replace=False).tolist())[:count]

    def _unknown(self, queries: _VideoQueries, drawn: Sequence[int]) -> list[int]:
        """Those that this video is not annotated with, and that are labelled somewhere."""
        return [concept for concept in drawn if concept not in queries.concepts and self._wordings[concept]]

    def _similar_to(self, concept: int) -> tuple[int, ...]:
        """Other labelled concepts that share a word with this one, in any of their wordings."""
        if concept not in self._similar:
            if self._by_word is None:
                self._by_word = self._index_words()
            words = {word for annotation in self._wordings[concept] for word in _words(annotation.query)}
            concepts = {other for word in words for other in self._by_word.get(word, ())}
            self._similar[concept] = tuple(sorted(concepts - {concept}))
        return self._similar[concept]

    def _index_words(self) -> dict[str, list[int]]:
        """Concepts by the words of their wordings, without words that most of them have."""
        concepts_of: dict[str, set[int]] = {}
        for concept, wordings in enumerate(self._wordings):
            for text in {annotation.query for annotation in wordings}:
                for word in _words(text):
                    concepts_of.setdefault(word, set()).add(concept)
        most = COMMON_SHARE * len(self._wordings)
        return {word: sorted(concepts) for word, concepts in concepts_of.items() if len(concepts) <= most}

    def _sort(self, annotations: Sequence[Annotation]) -> _VideoQueries:
        by_concept: dict[int, list[Annotation]] = {}
        timed: list[tuple[float, float, int, Annotation]] = []
        for annotation in annotations:
            concept = self._number.setdefault(annotation.concept_key, len(self._number))
            if concept == len(self._wordings):
                self._wordings.append([])
            labelled = by_concept.setdefault(concept, [])
            if annotation.is_labelled:
                labelled.append(annotation)
                self._wordings[concept].append(annotation)
                timed += [(start_s, end_s, concept, annotation) for start_s, end_s in annotation.windows]
        timed.sort(key=lambda entry: entry[:3])
        present = {concept for _, _, concept, _ in timed}
        absent = sorted(concept for concept, labelled in by_concept.items() if labelled and concept not in present)
        return _VideoQueries(
            concepts={concept: tuple(labelled) for concept, labelled in by_concept.items()},
            present=np.array([concept for _, _, concept, _ in timed], dtype=np.int64),
            starts_s=np.array([start_s for start_s, *_ in timed], dtype=np.float64),
            ends_s=np.array([end_s for _, end_s, *_ in timed], dtype=np.float64),
            absent=np.array(absent, dtype=np.int64),
            timed=tuple(annotation for *_, annotation in timed),
        )


def _words(query: str) -> list[str]:
    return re.findall(r"[^\W_]+", words_of(query))
