"""TACoS-CG: sentences about whole videos of TACoS, as JSON; `qle prepare tacos-cg` makes more of them (qle/data/summaries).

    [{"video_id": "s17-d69.avi", "summarized_sentence": "A man prepares ...", "fps": 29.4, "num_frames": 12438}, ...]

Several rows speak of one video; they become s17-d69_cg0, s17-d69_cg1, ... Many videos show the same dish, so a sentence may
be true of videos that it was not written for. Nobody says when a summary happens: rows are not labelled.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation, checked_number, checked_object, checked_text, checked_video
from qle.data.readers.json_items import list_items
from qle.data.readers.tacos import SUFFIX
from qle.data.readers.text_rows import numbered_lines
from qle.data.readlog import BadRow, ReadLog


def read(source: Path, log: ReadLog, *, videos: Path | None = None) -> list[Annotation]:
    """`videos`: a file with the names of those to keep, one a line, with or without ".avi", as the published splits are."""
    wanted = None if videos is None else {name.removesuffix(SUFFIX) for _, name in numbered_lines(videos)}
    annotations: list[Annotation] = []
    counts: dict[str, int] = {}
    items = list_items(source)
    for number, (line, item) in enumerate(items):
        try:
            annotation = _annotation(checked_object("row", item), counts)
        except BadRow as bad:
            log.bad(source, line, BadRow(f"[{number}] {bad.key}", bad.reason))
            continue
        if wanted is None or annotation.video in wanted:
            annotations.append(annotation)
    log.close(len(items))
    if wanted is not None:
        _tell_missing(wanted, counts, log)
    if not annotations:
        raise log.nothing_left(f"{source} holds no summary that can be used")
    return annotations


def _annotation(row: dict[str, Any], counts: dict[str, int]) -> Annotation:
    video = checked_video("video_id", row.get("video_id")).removesuffix(SUFFIX)
    query = checked_text("summarized_sentence", row.get("summarized_sentence"))
    fps, num_frames = (checked_number(key, row.get(key)) for key in ("fps", "num_frames"))
    if fps <= 0 or num_frames <= 0:
        raise BadRow("fps", f"expected more than 0, got {fps:g} for {num_frames:g} frames")
    number = counts[video] = counts.get(video, -1) + 1
    return Annotation(
        qid=f"{video}_cg{number}", video=video, query=query, windows=(), is_labelled=False, duration_s=num_frames / fps,
        origin={"fps": row["fps"], "num_frames": row["num_frames"]},
    )  # fmt: skip


def _tell_missing(wanted: Collection[str], known: Collection[str], log: ReadLog) -> None:
    if missing := sorted(set(wanted) - set(known)):
        log.note(f"{len(missing):,} listed videos have no summary: {', '.join(missing[:4])}")
