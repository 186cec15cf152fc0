"""Charades-STA: lines `VIDEO start end##sentence`, and the lengths of the videos in a CSV of Charades (columns id, length).

Windows of the published files reach past the ends of their videos, whose lengths are rounded; they are cut there, as all
published results do, and the log says how many and by how much.
"""

from pathlib import Path

from qle.data.annotations import Annotation, checked_windows
from qle.data.readers.text_rows import numbered_lines, parse_number, table_rows
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError


def read(source: Path, log: ReadLog, *, durations: Path | None = None) -> list[Annotation]:
    lengths_s = _lengths_s(durations) if durations is not None else None
    annotations: list[Annotation] = []
    num_lines = 0
    for line, text in numbered_lines(source):
        num_lines += 1
        try:
            annotations.append(_annotation(str(len(annotations)), text, lengths_s, log))
        except BadRow as bad:
            log.bad(source, line, bad)
    log.close(num_lines)
    if not annotations:
        raise log.nothing_left(f"{source} holds no line `VIDEO start end##sentence` that can be used")
    return annotations


def _annotation(qid: str, text: str, lengths_s: dict[str, float] | None, log: ReadLog) -> Annotation:
    place, separator, sentence = text.partition("##")
    parts = place.split()
    if not separator or len(parts) != 3 or not sentence.strip():
        raise BadRow("line", f"expected `VIDEO start end##sentence`, got {text[:80]!r}")
    video, start_s, end_s = parts[0], parse_number("start", parts[1]), parse_number("end", parts[2])
    duration_s = None if lengths_s is None else lengths_s.get(video)
    if lengths_s is not None and duration_s is None:
        raise BadRow("video", f"the file of lengths does not know {video}")
    return Annotation(
        qid=qid, video=video, query=sentence.strip(), duration_s=duration_s,
        windows=checked_windows([[start_s, end_s]], duration_s, log, slack_s=end_s),
    )  # fmt: skip


def _lengths_s(path: Path) -> dict[str, float]:
    lengths_s: dict[str, float] = {}
    for line, row in table_rows(path, ","):
        if not row.get("id") or not row.get("length"):
            raise AnnotationError(f"{path} line {line}: expected columns id and length, got {', '.join(row)}")
        try:
            lengths_s[row["id"]] = parse_number("length", row["length"])
        except BadRow as bad:
            raise AnnotationError(f"{path} line {line}, {bad.key}: {bad.reason}") from bad
    return lengths_s
