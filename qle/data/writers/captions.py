"""DiDeMo and MSR-VTT: tables with one text a video or a caption, for text-to-video retrieval."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation
from qle.data.readers.didemo import COLUMNS
from qle.data.readlog import ReadLog
from qle.data.writers.rows import tell_lost

DIDEMO_END_S = 31
"""What the published files have for every video."""


def encode_didemo(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """Paths are names of files: the folders of whoever made the published file are gone."""
    tell_lost(annotations, log, "windows", "saliency", "boxes", "masks", "concept", "split")
    return {out: _table(COLUMNS, (_didemo_row(annotation) for annotation in annotations), "\r\n")}


def _didemo_row(annotation: Annotation) -> tuple[Any, ...]:
    start_s, end_s = (annotation.origin.get(*default) for default in (("start_s", 0), ("end_s", DIDEMO_END_S)))
    file = annotation.origin.get("file", annotation.video)
    name, number = re.fullmatch(r"(.*?)(\d*)", annotation.qid, re.DOTALL).groups()  # type: ignore[union-attr]
    data = f"{name}{int(number)}.pth" if number else f"{name}.pth"
    return ("True", file, f"tensor([[{start_s}]])", f"tensor([[{end_s}]])", annotation.query, data)


def encode_msrvtt(out: Path, annotations: Sequence[Annotation], log: ReadLog) -> Mapping[Path, bytes]:
    """As the test file: key, vid_key, video_id, sentence."""
    tell_lost(annotations, log, "windows", "saliency", "boxes", "masks", "concept", "split")
    rows = (
        (annotation.qid, re.sub(r"^video(?=\d+$)", "msr", annotation.video), annotation.video, annotation.query)
        for annotation in annotations
    )
    return {out: _table(("key", "vid_key", "video_id", "sentence"), rows, "\n")}


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]], line_end: str) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator=line_end)
    table.writerow(columns)
    table.writerows(rows)
    return text.getvalue().encode()
