"""Charades-STA: lines `VIDEO start end##sentence`, and beside them the lengths of the videos as a CSV (id, length)."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from qle.data.annotations import Annotation
from qle.data.readlog import ReadLog
from qle.data.writers.rows import single_windows, tell_lost
from qle.errors import AnnotationError


def encode(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    lines: list[str] = []
    lengths_s: dict[str, float] = {}
    for annotation, (start_s, end_s) in single_windows(annotations, log):
        if (
            any(sign.isspace() for sign in annotation.video)
            or "##" in annotation.video
            or len(annotation.query.splitlines()) != 1
        ):
            raise AnnotationError(
                f"annotation {annotation.qid!r} of {annotation.video!r}: a video with spaces or a query of several lines: "
                "the lines of Charades-STA cannot hold that"
            )
        lines.append(f"{annotation.video} {start_s!r} {end_s!r}##{annotation.query}\n")
        if annotation.duration_s is not None:
            lengths_s[annotation.video] = annotation.duration_s
    tell_lost(annotations, log, "saliency", "boxes", "masks", "concept", "split")
    files = {out: "".join(lines).encode()}
    if lengths_s:
        files[lengths_path(out)] = _lengths(lengths_s)
    return files


def lengths_path(out: Path) -> Path:
    """Beside the lines: `--durations` of `qle prepare charades`."""
    return out.with_name(f"{out.stem}_lengths.csv")


def _lengths(lengths_s: Mapping[str, float]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "length"))
    table.writerows((video, repr(length_s)) for video, length_s in lengths_s.items())
    return text.getvalue().encode()
