"""What a window is asked, and the answers row by row. No torch.

    (video, rows of a window, random numbers) -> Question(text, relevance, known) ...

What happens in the window comes first, one question a concept, worded as one of its annotations at random; then what surely
does not (data/negatives.py). Where a window is full of events one place is kept for something that does not happen, so that a
head cannot win by saying yes. Rows are labelled by the rule of evaluation (segments.mask_of).

Saliency: the mean over the raters of the clip that the row's time falls into, divided by the highest score. Rows of clips
that nobody rated are unknown inside the windows of the query, and 0 outside of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qle.data.annotations import Annotation
from qle.data.negatives import QueryPool
from qle.data.rows import RowChoice
from qle.segments.spans import mask_of
from qle.tasks.rows.batches.config import DataConfig


@dataclass(frozen=True, slots=True)
class Question:
    """One query about one window."""

    text: str
    relevance: np.ndarray | float
    """(rows of the window,) float32, or one number for all of them."""
    known: np.ndarray | bool
    """(rows of the window,) bool, or one for all of them."""


class Questioner:
    """Asks windows of the annotated videos. Labels of a concept in a video are computed once, for all of its rows."""

    def __init__(
        self, annotations: Mapping[str, Sequence[Annotation]], rows: Mapping[str, RowChoice], config: DataConfig
    ) -> None:
        self._pool = QueryPool(annotations)
        self._annotations, self._rows, self._config = annotations, rows, config
        self._labels: dict[tuple[str, str], tuple[np.ndarray, np.ndarray | None]] = {}

    def ask(self, video: str, first: int, stop: int, rng: np.random.Generator) -> list[Question]:
        """One to `queries_per_window` questions about rows first..stop-1."""
        num_slots, edges_s = self._config.queries_per_window, self._rows[video].edges_s
        start_s, end_s = float(edges_s[first]), float(edges_s[stop])
        wordings: dict[str, list[Annotation]] = {}
        for annotation in self._pool.positives(video, start_s, end_s):
            wordings.setdefault(annotation.concept_key, []).append(annotation)
        concepts = list(wordings)
        if len(concepts) > 1:
            concepts = [concepts[number] for number in rng.permutation(len(concepts))]
        most = max(1, num_slots - 1)
        count = num_slots - min(len(concepts), most)
        absent = (
            self._pool.negatives(video, start_s, end_s, count, rng, self._config.negatives) if count else []  # type: ignore[arg-type]
        )
        asked = [
            self._question(video, wordings[concept], first, stop, rng)
            for concept in concepts[: num_slots - len(absent)]
        ]
        asked += [Question(annotation.query, 0.0, True) for annotation in absent]
        # A batch without any query cannot be encoded. Of this one nothing is known, so nothing is learned from it.
        return asked or [Question(self._annotations[video][0].query, 0.0, False)]

    def _question(
        self, video: str, wordings: Sequence[Annotation], first: int, stop: int, rng: np.random.Generator
    ) -> Question:
        chosen = wordings[int(rng.integers(len(wordings))) if len(wordings) > 1 else 0]
        relevance, known = self._labels_of(video, chosen.concept_key)
        return Question(chosen.query, relevance[first:stop], True if known is None else known[first:stop])

    def _labels_of(self, video: str, concept: str) -> tuple[np.ndarray, np.ndarray | None]:
        labels = self._labels.get((video, concept))
        if labels is None:
            same = [a for a in self._annotations[video] if a.is_labelled and a.concept_key == concept]
            labels = self._labels[video, concept] = row_labels(same, self._rows[video], self._config)
        return labels


def sides(
    annotations: Mapping[str, Sequence[Annotation]], rows: Mapping[str, RowChoice], config: DataConfig
) -> tuple[bool, bool]:
    """Whether a training on these videos ever sees a row in which its query happens, and one in which it does not."""
    has_positive, has_negative = False, False
    for video, of_video in annotations.items():
        by_concept: dict[str, list[Annotation]] = {}
        for annotation in of_video:
            if annotation.is_present:
                by_concept.setdefault(annotation.concept_key, []).append(annotation)
        for same in by_concept.values():
            relevance, known = row_labels(same, rows[video], config)
            told = relevance[rows[video].valid if known is None else rows[video].valid & known]
            has_positive, has_negative = has_positive or bool((told > 0).any()), has_negative or bool((told == 0).any())
            if has_positive and has_negative:
                return True, True
    pool, rng = QueryPool(annotations), np.random.default_rng(0)
    has_negative = has_negative or any(
        pool.negatives(video, 0.0, choice.duration_s, 1, rng, config.negatives)  # type: ignore[arg-type]
        for video, choice in rows.items()
    )
    return has_positive, has_negative


def row_labels(
    annotations: Sequence[Annotation], rows: RowChoice, config: DataConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """Relevance of every row for one concept, by all of its annotations in a video; and which are known, where not all are."""
    inside = mask_of([window for annotation in annotations for window in annotation.windows], rows.edges_s)
    relevance = inside.astype(np.float32)
    rated = [annotation for annotation in annotations if annotation.saliency is not None]
    if config.labels == "windows" or not rated:
        return relevance, None
    scores = np.stack([_scores(annotation, rows.times_s) for annotation in rated]) / config.saliency_max
    has_score = np.isfinite(scores)
    mean = np.where(has_score, scores, 0).sum(0) / np.maximum(has_score.sum(0), 1)
    is_rated = has_score.any(0)
    relevance = np.where(is_rated, np.clip(mean, 0, 1), 0).astype(np.float32)
    return relevance, is_rated | ~inside


def _scores(annotation: Annotation, times_s: np.ndarray) -> np.ndarray:
    """Mean score of the clip of each time, NaN where nobody rated."""
    assert annotation.saliency is not None
    has_score = np.isfinite(annotation.saliency)
    total = np.where(has_score, annotation.saliency, 0).sum(axis=1)
    mean = np.where(has_score.any(axis=1), total / np.maximum(has_score.sum(axis=1), 1), np.nan)
    clip = np.floor(times_s / annotation.clip_s + 1e-9).astype(np.int64)
    return np.where(clip < len(mean), mean[np.minimum(clip, len(mean) - 1)], np.nan) if len(mean) else times_s * np.nan
