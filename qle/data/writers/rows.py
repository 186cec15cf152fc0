"""What the writers of datasets share: which annotations a format can hold, what is lost, and plain numbers.

annotations -> those that fit, and a note on each kind of thing that does not
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from qle.data.annotations import Annotation, Window
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError


def labelled(annotations: Sequence[Annotation], log: ReadLog) -> list[Annotation]:
    """Those with windows. Formats of moments cannot say that a query never happens, or that nobody knows."""
    for kind, count in (
        ("say that their query never happens", sum(annotation.is_absent for annotation in annotations)),
        ("have no labels", sum(not annotation.is_labelled for annotation in annotations)),
    ):
        if count:
            log.num_left_out += count
            log.note(f"{count:,} annotations left out: they {kind}, for which this format has no word")
    kept = [annotation for annotation in annotations if annotation.is_present]
    if not kept:
        raise AnnotationError(f"there is nothing to write: none of {len(annotations):,} annotations has a window")
    return kept


def single_windows(annotations: Sequence[Annotation], log: ReadLog) -> Iterator[tuple[Annotation, Window]]:
    """For formats with one window a row: an annotation with several becomes several rows."""
    kept = labelled(annotations, log)
    if count := sum(len(annotation.windows) > 1 for annotation in kept):
        log.note(f"{count:,} annotations with several windows became a row for each: this format has one window a row")
    for annotation in kept:
        for window in annotation.windows:
            yield annotation, window


def tell_lost(annotations: Sequence[Annotation], log: ReadLog, *names: str) -> None:
    """A note on fields that the format has no place for."""
    if lost := [name for name in names if any(_is_said(getattr(annotation, name)) for annotation in annotations)]:
        log.note(f"this format has no place for {', '.join(lost)}")


def _is_said(value: Any) -> bool:
    return isinstance(value, np.ndarray) or bool(value)


def duration_of(annotation: Annotation) -> float:
    """AnnotationError where the format needs a length that nobody told."""
    if annotation.duration_s is None:
        raise AnnotationError(
            f"annotation {annotation.qid!r} of {annotation.video!r}, duration: missing, and this format needs it"
        )
    return annotation.duration_s


def plain(value: float) -> int | float:
    """Whole numbers without a point, as most files have them."""
    return int(value) if value.is_integer() else value


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def json_document(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
