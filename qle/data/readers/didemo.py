"""DiDeMo for paragraph-to-video retrieval: a CSV in which all sentences of a video are one text.

    success,video_path,starts,ends,text,formatted_data
    True,/some/26292851@N04_4253489686_265c3c8051.m4v,tensor([[0]]),tensor([[31]]),"someone kicks ...",/some/test_data_id_0.pth

Columns are printed tensors, texts run over several lines, lines end in CRLF or LF. The id is the name of `formatted_data` with
its number in five digits (test_data_id_00000): it becomes the qid. The video is the file of `video_path` without its suffix,
as a cache of the downloaded files has it, or with `by_id` that id. Nobody says when a paragraph happens, so rows are not
labelled; `starts` and `ends`, the stretch that published results look at (0 to 31 s throughout), are kept in `origin`.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from qle.data.annotations import Annotation, checked_text, checked_video
from qle.data.readers.text_rows import check_cells, columns_needed, one_line, parse_number, table_rows
from qle.data.readlog import BadRow, KnownFault, ReadLog

COLUMNS = ("success", "video_path", "starts", "ends", "text", "formatted_data")

_PRINTED = re.compile(r"tensor\(\[*\s*(-?[0-9.]+)\s*,?\s*\]*\)$")
_ID = re.compile(r"(?P<name>.*?)(?P<number>[0-9]{1,9})$")


def read(source: Path, log: ReadLog, *, by_id: bool = False) -> list[Annotation]:
    annotations: list[Annotation] = []
    lines: dict[str, int] = {}
    num_rows = 0
    for line, row in columns_needed(source, table_rows(source, ","), ("video_path", "text", "formatted_data")):
        num_rows += 1
        try:
            check_cells(row)
            annotation = _annotation(row, by_id=by_id)
            if lines.setdefault(annotation.qid, line) != line:
                raise BadRow("formatted_data", f"{annotation.qid!r} stands in line {lines[annotation.qid]} too")
        except BadRow as bad:
            log.bad(source, line, bad)
            continue
        annotations.append(annotation)
    log.close(num_rows)
    if not annotations:
        raise log.nothing_left(f"{source} holds no paragraph that can be used")
    return annotations


def _annotation(row: dict[str, str], *, by_id: bool) -> Annotation:
    if row.get("success", "True") != "True":
        raise KnownFault("success", f"{row['success']!r}: whoever made the file could not read the video")
    qid = _padded(row["formatted_data"])
    file = checked_video("video_path", PurePosixPath(row["video_path"].replace("\\", "/")).name)
    origin: dict[str, Any] = {"file": file}
    for key, name in (("starts", "start_s"), ("ends", "end_s")):
        if row.get(key):
            seconds = parse_number(key, _PRINTED.sub(r"\1", row[key]))
            origin[name] = int(seconds) if seconds.is_integer() else seconds
    return Annotation(
        qid=qid, video=qid if by_id else PurePosixPath(file).stem, query=checked_text("text", one_line(row["text"])),
        windows=(), is_labelled=False, origin=origin,
    )  # fmt: skip


def _padded(path: str) -> str:
    stem = PurePosixPath(path.replace("\\", "/")).stem
    match = _ID.fullmatch(stem)
    if match is None:
        raise BadRow("formatted_data", f"expected the path of a file whose name ends in a number, got {path[:80]!r}")
    return f"{match['name']}{int(match['number']):05d}"
