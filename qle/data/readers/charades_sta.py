"""Charades-STA: lines `VIDEO start end##sentence`, and the lengths of the videos in a CSV of Charades (columns id, length).
JSON Lines of the same rows in the keys of QVHighlights are read too; their lengths stand in them.

Windows of the published files reach past the ends of their videos, whose lengths are rounded; they are cut there, as all
published results do, and the log says how many and by how much. Of the published training lines three start behind the end
of their video and are left out, and one stands the wrong way round.
"""

from collections.abc import Mapping
from pathlib import Path

from qle.data.annotations import Annotation, Window, checked_video, checked_windows
from qle.data.readers import qvhighlights
from qle.data.readers.json_items import is_json_lines
from qle.data.readers.text_rows import numbered_lines, parse_number, table_rows
from qle.data.readlog import BadRow, KnownFault, ReadLog
from qle.errors import AnnotationError


def read(source: Path, log: ReadLog, *, durations: Path | None = None) -> list[Annotation]:
    if is_json_lines(source):
        return qvhighlights.read(source, log)
    lengths_s = read_lengths(durations) if durations is not None else None
    annotations: list[Annotation] = []
    num_lines = 0
    for line, text in numbered_lines(source):
        num_lines += 1
        try:
            video, start_s, end_s, sentence = _parts(text)
            duration_s = None if lengths_s is None else _length_s(lengths_s, video)
            windows = charades_windows(start_s, end_s, duration_s, log, source, line)
        except BadRow as bad:
            log.bad(source, line, bad)
            continue
        qid = str(len(annotations))
        annotations.append(
            Annotation(qid=qid, video=video, query=sentence, duration_s=duration_s, windows=windows)
        )  # fmt: skip
    log.close(num_lines)
    if not annotations:
        raise log.nothing_left(f"{source} holds no line `VIDEO start end##sentence` that can be used")
    return annotations


def charades_windows(
    start_s: float, end_s: float, duration_s: float | None, log: ReadLog, source: Path, line: int
) -> tuple[Window, ...]:
    """By the rules of all published results. Raises BadRow."""
    if duration_s is not None and start_s >= duration_s:
        raise KnownFault("start", f"{start_s:g} s is behind the end of the video at {duration_s:g} s")
    is_turned = start_s > end_s
    start_s, end_s = min(start_s, end_s), max(start_s, end_s)
    windows = checked_windows([[start_s, end_s]], duration_s, log, slack_s=end_s)
    if is_turned:
        log.turned(source, line)
    return windows


def _parts(text: str) -> tuple[str, float, float, str]:
    moment, separator, sentence = text.partition("##")
    parts = moment.split()
    if not separator or len(parts) != 3 or not sentence.strip():
        raise BadRow("line", f"expected `VIDEO start end##sentence`, got {text[:80]!r}")
    start_s, end_s = parse_number("start", parts[1]), parse_number("end", parts[2])
    return checked_video("video", parts[0]), start_s, end_s, sentence.strip()


def _length_s(lengths_s: Mapping[str, float], video: str) -> float:
    if video not in lengths_s:
        raise BadRow("video", f"the file of lengths does not know {video}")
    return lengths_s[video]


def read_lengths(path: Path) -> dict[str, float]:
    """Seconds of each video, from a CSV with columns id and length."""
    lengths_s: dict[str, float] = {}
    for line, row in table_rows(path, ","):
        if not row.get("id") or not row.get("length"):
            raise AnnotationError(f"{path} line {line}: expected columns id and length, got {', '.join(row)}")
        try:
            length_s = parse_number("length", row["length"])
            if length_s <= 0:
                raise BadRow("length", f"expected more than 0 s, got {length_s:g}")
        except BadRow as bad:
            raise AnnotationError(f"{path} line {line}, {bad.key}: {bad.reason}") from bad
        lengths_s[row["id"]] = length_s
    return lengths_s
