"""A file of predictions as answers: what other programs say is measured by the same functions as a head.

    annotations + rows of a QVHighlights submission -> MomentTable + MomentAnswers (+ what was not answered)

Rows are matched by qid, as text. `vid` and `query` are not looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qle.data.annotations import Annotation
from qle.errors import AnnotationError
from qle.eval.moments.answers import MOST_SPANS, MomentAnswers, MomentTable, clip_scores, moment_table
from qle.eval.moments.detection import SpanLists
from qle.eval.submissions.rows import CLIP_S, SALIENCY, WINDOWS, Row, Side, checked_numbers
from qle.types import ScoreTrack

PRESENCE = "pred_exist_score"
"""A key of our own files: the probability that the query happens at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What a file says."""

    table: MomentTable
    answers: MomentAnswers
    num_unanswered: int
    """Queries without a row: they count as misses."""
    num_unasked: int
    """Rows about other queries: left out."""
    num_reversed: int
    """Windows that end before they start: they overlap nothing."""

    @property
    def counts(self) -> dict[str, int]:
        """For the report."""
        return {
            "unanswered": self.num_unanswered,
            "unasked": self.num_unasked,
            "reversed_spans": self.num_reversed,
        }


def submitted_answers(
    annotations: Sequence[Annotation],
    rows: Sequence[Row],
    *,
    name: str,
    allow_missing: bool = False,
    by_score: bool = True,
    allow_reversed: bool = False,
) -> Submitted:
    """`by_score`: lists are ordered by score, equal ones as in the file; else the order of the file is the ranking.

    AnnotationError where queries are not answered or rows are about others, unless `allow_missing`; for what is no prediction.
    A row without windows says that the query does not happen.
    """
    side = Side(name, rows)
    if not rows:
        raise AnnotationError(f"{name}: there are no rows, expected at least one query")
    answered = side.by_qid(as_text=True)
    unanswered = [annotation.qid for annotation in annotations if annotation.qid not in answered]
    num_unasked = len(answered) - (len(annotations) - len(unanswered))
    # No answer says of a query what a row without windows says: that it does not happen. Where that is true it is enough.
    needed = [
        annotation.qid for annotation in annotations if annotation.qid not in answered and not annotation.is_absent
    ]
    if (needed or num_unasked) and not (allow_missing and len(unanswered) < len(annotations)):
        example = f", e.g. {needed[0]!r}" if needed else ""
        raise AnnotationError(
            f"{name}: {len(needed):,} annotated queries have no prediction{example}; {num_unasked:,} rows are about others\n"
            "answer every query once, or pass --allow-missing to measure with what is there (what is missing is a miss)"
        )
    table = moment_table(
        annotations,
        [annotation.video for annotation in annotations],
        [np.nan if annotation.duration_s is None else annotation.duration_s for annotation in annotations],
    )
    numbers = [answered.get(annotation.qid, -1) for annotation in annotations]
    owner, flat = _windows(side, numbers, allow_reversed=allow_reversed)
    order = np.lexsort([-flat[:, 2], owner]) if by_score else np.arange(len(owner))
    presence = _presence(side, numbers)
    has_moment = np.bincount(owner, minlength=len(numbers)) > 0
    return Submitted(
        table=table,
        answers=MomentAnswers(
            lists=SpanLists.of(owner, flat[order, 0], flat[order, 1], len(numbers), MOST_SPANS),
            clip_scores=[_clip_scores(side, numbers[number], annotations[number]) for number in table.rated.tolist()],
            presence=presence,
            has_moment=has_moment if presence is None else has_moment & (presence >= 0.5),
        ),
        num_unanswered=len(unanswered),
        num_unasked=num_unasked,
        num_reversed=int((flat[:, 1] < flat[:, 0]).sum()),
    )


def _windows(side: Side, numbers: Sequence[int], *, allow_reversed: bool) -> tuple[np.ndarray, np.ndarray]:
    """(windows,) number of their query, (windows, 3) start, end, score."""
    advice = "give a list of [start, end, score]; an empty one says that the query does not happen"
    lists = [
        side.listed(number, WINDOWS, advice, may_be_empty=True)[:MOST_SPANS] if number >= 0 else []
        for number in numbers
    ]
    flat = side.table(numbers, lists, 3, WINDOWS, "expected [start, end, score]")
    owner = np.repeat(np.arange(len(lists)), [len(some) for some in lists])
    if not allow_reversed:
        side.forward(numbers, owner, flat, WINDOWS, has_length=False)
    return owner, flat


def _presence(side: Side, numbers: Sequence[int]) -> np.ndarray | None:
    """0 for a query that was not answered; None where any answer does not say."""
    values: list[Any] = [side.rows[number].get(PRESENCE) if number >= 0 else 0.0 for number in numbers]
    if any(value is None for value in values):
        return None
    return side.numbers(numbers, [[value] for value in values], PRESENCE)


def _clip_scores(side: Side, number: int, annotation: Annotation) -> np.ndarray:
    """Scores of the rated clips, whatever the length of the clips of the file; nothing is known where there are no scores."""
    values = (
        []
        if number < 0 or side.rows[number].get(SALIENCY) is None
        else side.listed(number, SALIENCY, "give a score for every clip, or leave the key out", may_be_empty=True)
    )
    score = side.numbers([number], [values], SALIENCY).astype(np.float32)
    own = side.rows[number].get("qle") if number >= 0 else None
    clip_s = checked_numbers([own.get("clip_s", CLIP_S)] if isinstance(own, dict) else [CLIP_S])
    if clip_s is None or clip_s[0] <= 0:
        side.refuse(number, "qle.clip_s", "expected seconds above 0", "leave it out where clips are 2 s long")
    edges = np.arange(len(score) + 1) * clip_s[0]
    track = ScoreTrack(times_s=edges[:-1], edges_s=edges, valid=np.ones(len(score), dtype=bool), logit=score)
    return clip_scores(track, annotation)
