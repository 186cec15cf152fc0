"""A table of intervals, the form that people make themselves: columns video, query, start, end, one line an interval.

    video,query,start,end
    a.mp4,the polyp is washed,83.5,1:31
    a.mp4,the polyp is washed,2:10,2:15
    a.mp4,bleeding,,

Lines of the same video and query make one annotation with several windows. A line without start and end says: it is known
that this never happens in this video. Times are seconds or [h:]mm:ss, or whole frames in columns start_frame and end_frame,
of which both belong to the interval, when `fps` says how long a frame is. Comma, semicolon or tab; the names of columns are
those of SYNONYMS, small or capital. Optional columns: split, concept (or label, of which synonyms share one), duration, qid.
"""

from dataclasses import dataclass, field
from pathlib import Path

from qle.data.annotations import Annotation, Window, checked_windows
from qle.data.readers.text_rows import check_cells, parse_number, parse_seconds, table_rows
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "video": ("video", "vid", "video_id", "video_name", "path", "file", "filename"),
    "query": ("query", "text_query", "text", "sentence", "caption", "description"),
    "start": ("start", "start_s", "start_sec", "start_time", "begin", "onset", "from"),
    "end": ("end", "end_s", "end_sec", "end_time", "stop", "offset", "to"),
    "start_frame": ("start_frame",),
    "end_frame": ("end_frame",),
    "split": ("split", "subset", "part"),
    "concept": ("concept", "label", "class", "event", "category"),
    "duration": ("duration", "duration_s", "length", "video_duration"),
    "qid": ("qid", "query_id"),
}
"""What the columns may be called. Without a column for the query, the label is the query."""


@dataclass(slots=True)
class _Asked:
    """What the lines about one query of one video have said so far."""

    line: int
    told: dict[str, str]
    """qid, split, concept and duration, as far as some line has them."""
    duration_s: float | None
    windows: list[Window] = field(default_factory=list)
    is_absent: bool = False
    is_spoilt: bool = False
    """A line of it was wrong: without that interval the rest would be a wrong label, so all of it is left out."""


def read(source: Path, log: ReadLog, *, fps: float | None = None) -> list[Annotation]:
    asked: dict[tuple[str, str], _Asked] = {}
    num_rows = 0
    names: dict[str, str] = {}
    for line, row in table_rows(source):
        names = names or _columns(source, row, log)
        num_rows += 1
        cells = {name: row[column] for name, column in names.items() if row.get(column)}
        entry = asked.setdefault((cells.get("video", ""), cells.get("query", "")), _Asked(line, {}, None))
        try:
            check_cells(row)
            _add(entry, cells, fps, log)
        except BadRow as bad:
            entry.is_spoilt = True
            log.bad(source, line, bad)
    annotations = _annotations(source, asked, log)
    log.close(num_rows)
    if not annotations:
        raise log.nothing_left(f"{source} holds no interval that can be used")
    return annotations


def _columns(source: Path, row: dict[str, str], log: ReadLog) -> dict[str, str]:
    """Our name -> the name in the file."""
    small = {column.lower().replace(" ", "_"): column for column in row if column}
    names = {
        name: small[column]
        for name, known in SYNONYMS.items()
        if (column := next((synonym for synonym in known if synonym in small), None))
    }
    if "query" not in names and "concept" in names:
        names["query"] = names["concept"]
    times = ("start_frame", "end_frame") if "start_frame" in names and "start" not in names else ("start", "end")
    for name in ("video", "query", *times):
        if name not in names:
            known = ", ".join(SYNONYMS[name])
            raise AnnotationError(f"{source} line 1: no column for the {name} ({known})\ncolumns: {', '.join(row)}")
    if unused := [column for column in row if column and column not in names.values()]:
        log.note(f"{source}: columns that mean nothing here: {', '.join(unused)}")
    return names


def _add(entry: _Asked, cells: dict[str, str], fps: float | None, log: ReadLog) -> None:
    for name in ("video", "query"):
        if name not in cells:
            raise BadRow(name, "missing")
    for name in ("qid", "split", "concept", "duration"):
        if name in cells and entry.told.setdefault(name, cells[name]) != cells[name]:
            before = f"but line {entry.line}, about the same video and query, says {entry.told[name]!r}"
            raise BadRow(name, f"{cells[name]!r}, {before}")
    if "duration" in cells:
        entry.duration_s = parse_seconds("duration", cells["duration"])
    window = _window(cells, fps)
    if (window is None and entry.windows) or (window is not None and entry.is_absent):
        raise BadRow("start", f"line {entry.line} and this one: one says that it never happens, the other when it does")
    if window is None:
        entry.is_absent = True
    else:
        entry.windows += checked_windows([window], entry.duration_s, log)


def _window(cells: dict[str, str], fps: float | None) -> list[float] | None:
    is_frames = "start_frame" in cells or "end_frame" in cells
    start, end = ("start_frame", "end_frame") if is_frames else ("start", "end")
    if start not in cells and end not in cells:
        return None
    for name in (start, end):
        if name not in cells:
            raise BadRow(name, "missing, though the other end is there; both are empty for a query that never happens")
    if not is_frames:
        return [parse_seconds(start, cells[start]), parse_seconds(end, cells[end])]
    if fps is None:
        raise BadRow(start, "counts frames: say how many there are in a second with --fps")
    return [parse_number(start, cells[start]) / fps, (parse_number(end, cells[end]) + 1) / fps]


def _annotations(source: Path, asked: dict[tuple[str, str], _Asked], log: ReadLog) -> list[Annotation]:
    annotations: list[Annotation] = []
    qids: dict[str, int] = {}
    num_spoilt = 0
    for number, ((video, query), entry) in enumerate(asked.items()):
        qid = entry.told.get("qid", str(number))
        if qids.setdefault(qid, entry.line) != entry.line:
            log.bad(source, entry.line, BadRow("qid", f"{qid!r} stands in line {qids[qid]} too"))
        elif entry.is_spoilt:
            num_spoilt += 1
        else:
            try:  # once more: the length may have come after the window
                windows = checked_windows(entry.windows, entry.duration_s, log)
            except BadRow as bad:
                log.bad(source, entry.line, bad)
                continue
            annotations.append(
                Annotation(
                    qid=qid, video=video, query=query, windows=windows, duration_s=entry.duration_s,
                    split=entry.told.get("split", ""), concept=entry.told.get("concept", ""),
                )
            )  # fmt: skip
    if num_spoilt:
        log.note(f"{num_spoilt:,} queries left out altogether, because one of their rows is wrong")
    return annotations
