"""MSR-VTT for text-to-video retrieval: one caption a row. Nobody says when a caption happens, so rows are not labelled.

    test   MSRVTT_JSFUSION_test.csv    key,vid_key,video_id,sentence: one caption for each of the 1,000 videos of 1k-A
    train  MSRVTT_train.9k.csv         video_id alone; the captions, 20 a video, are in MSRVTT_data.json (`captions`)
    all    MSRVTT_data.json            {"videos": [{"video_id", "split"}], "sentences": [{"video_id", "sen_id", "caption"}]}

qids are the keys of the test file (ret0) and the numbers of the captions. Captions of one video are annotations of one video,
and retrieval never takes them for each other's negatives.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation, checked_list, checked_name, checked_object, checked_text, checked_video
from qle.data.readers.json_items import object_items
from qle.data.readers.text_rows import check_cells, columns_needed, one_line, read_text, table_rows
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError, ConfigError

PARTS = {"train": "train", "validate": "val", "val": "val", "test": "test"}
"""What the file calls its splits."""


def read(source: Path, log: ReadLog, *, captions: Path | None = None) -> list[Annotation]:
    if read_text(source).lstrip().startswith("{"):
        if captions is not None:
            raise ConfigError(f"{source} has captions of its own\nleave the other file of captions out")
        annotations = _captions(source, log)
    else:
        rows = columns_needed(source, table_rows(source, ","), ("video_id",))
        annotations = _of_table(source, rows, log) if captions is None else _of_list(source, rows, captions, log)
    if not annotations:
        raise log.nothing_left(f"{source} holds no caption that can be used")
    return annotations


def _of_table(source: Path, rows: Iterable[tuple[int, dict[str, str]]], log: ReadLog) -> list[Annotation]:
    """Captions stand in the table itself."""
    annotations: list[Annotation] = []
    lines: dict[str, int] = {}
    num_rows = 0
    for line, row in rows:
        if "sentence" not in row:
            raise AnnotationError(
                f"{source} line 1: a list of videos without their captions (no column sentence)\n"
                "name the file that has them (MSRVTT_data.json) with --captions"
            )
        num_rows += 1
        try:
            check_cells(row)
            qid = checked_text("key", row.get("key") or f"{row['video_id']}_{num_rows - 1}")
            if lines.setdefault(qid, line) != line:
                raise BadRow("key", f"{qid!r} stands in line {lines[qid]} too")
            annotations.append(_annotation(qid, row["video_id"], row["sentence"], "sentence"))
        except BadRow as bad:
            log.bad(source, line, bad)
    log.close(num_rows)
    return annotations


def _of_list(
    source: Path, rows: Iterable[tuple[int, dict[str, str]]], captions: Path, log: ReadLog
) -> list[Annotation]:
    """The captions of the listed videos, in the order of the list."""
    inner = ReadLog(skip_bad=log.skip_bad)
    by_video: dict[str, list[Annotation]] = {}
    for annotation in _captions(captions, inner):
        by_video.setdefault(annotation.video, []).append(annotation)
    log.notes += inner.notes
    log.skipped += inner.skipped
    annotations: list[Annotation] = []
    num_rows = 0
    for line, row in rows:
        num_rows += 1
        if of_video := by_video.pop(row["video_id"], None):
            annotations += of_video
        else:
            name = row["video_id"][:80]
            log.bad(source, line, BadRow("video_id", f"no captions of {name!r} in {captions}, or it was listed before"))
    log.close(num_rows)
    return annotations


def _captions(source: Path, log: ReadLog) -> list[Annotation]:
    entries = {key: (line, value) for line, key, value in object_items(source)}
    if "sentences" not in entries:
        raise AnnotationError(f"{source} line 1, sentences: missing\nthe keys of the file: {', '.join(entries)[:200]}")
    part_of = _parts(source, *entries["videos"]) if "videos" in entries else {}
    line, sentences = entries["sentences"]
    annotations: list[Annotation] = []
    seen: set[str] = set()
    try:
        sentences = checked_list("sentences", sentences)
    except BadRow as bad:
        raise AnnotationError(f"{source} line {line}, {bad.key}: {bad.reason}") from bad
    for number, sentence in enumerate(sentences):
        try:
            row = checked_object("row", sentence)
            qid = checked_name("sen_id", row.get("sen_id"))
            if qid in seen:
                raise BadRow("sen_id", f"{qid} is there twice")
            seen.add(qid)
            annotations.append(_annotation(qid, row.get("video_id"), row.get("caption"), "caption", part_of))
        except BadRow as bad:
            log.bad(source, line, BadRow(f"sentences[{number}] {bad.key}", bad.reason))
    log.close(len(sentences))
    return annotations


def _parts(source: Path, line: int, videos: Any) -> dict[str, str]:
    """Video -> part. Files without that say nothing."""
    part_of: dict[str, str] = {}
    for number, entry in enumerate(videos if isinstance(videos, list) else ()):
        try:
            row = checked_object("row", entry)
            if (part := row.get("split")) is not None:
                part_of[checked_name("video_id", row.get("video_id"))] = PARTS[checked_text("split", part)]
        except BadRow as bad:
            raise AnnotationError(f"{source} line {line}, videos[{number}] {bad.key}: {bad.reason}") from bad
        except KeyError as error:
            known = ", ".join(PARTS)
            raise AnnotationError(
                f"{source} line {line}, videos[{number}] split: expected {known}, got {error}"
            ) from error
    return part_of


def _annotation(qid: str, video: Any, caption: Any, key: str, part_of: dict[str, str] | None = None) -> Annotation:
    name = checked_video("video_id", video)
    return Annotation(
        qid=qid, video=name, query=one_line(checked_text(key, caption)), windows=(), is_labelled=False,
        split=(part_of or {}).get(name, ""),
    )  # fmt: skip
