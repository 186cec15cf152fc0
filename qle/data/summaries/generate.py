"""Annotations of moments -> annotations of whole videos, video by video; killed at any moment, no finished video is lost.

    OUT.jsonl           all rows, written at once when the last video is done
    .OUT.jsonl.part     rows of finished videos, appended while it works; gone afterwards

Every row says how it came about (`origin`: level, method, model and its weights, prompt, decoding, and a digest of the sentences
that it was made of). A row that is there already and says the same is kept, whatever it is found in; so the same
command again goes on, and further videos or levels are added to what is there.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qle.data.annotations import (
    Annotation,
    annotation_of,
    parse_row,
    raw_lines,
    read_annotations,
    row_of,
    words_of,
    write_annotations,
)
from qle.data.readlog import BadRow, ReadLog
from qle.data.summaries.levels import Level, Summariser
from qle.durable import append_line
from qle.errors import AnnotationError, ConfigError, InputError
from qle.types import OnProgress

KEPT_FACTS = ("fps", "num_frames")
"""Facts about a video that a summary keeps, for writers of other formats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummariesResult:
    """What is in the file now."""

    path: Path
    num_videos: int
    num_rows: int
    num_made: int
    """Rows made by this run; the others were there."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToldVideo:
    name: str
    sentences: tuple[str, ...]
    """In order of time, none twice."""
    duration_s: float | None
    facts: dict[str, Any]
    source: str
    """Digest of the sentences."""


def write_summaries(
    annotations: Path, out: Path, summariser: Summariser, levels: Sequence[Level], *, overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> SummariesResult:  # fmt: skip
    """Make what is missing of every level of every video. `overwrite`: rows of `out` that this would not make may go."""
    videos = _videos(read_annotations(annotations, allow_unlabelled=True))
    wanted = {
        _qid(video, level): _origin(video, level, summariser.identity(level)) for video in videos for level in levels
    }
    part = out.with_name(f".{out.name}.part")
    done = _known(out, part, wanted, overwrite=overwrite)
    num_known, notes = len(done), list[str]()
    _make_folder(out)
    for number, video in enumerate(videos):
        rows = _rows(video, [level for level in levels if _qid(video, level) not in done], summariser, wanted, notes)
        if rows:
            append_line(part, "\n".join(json.dumps(row_of(row), ensure_ascii=False) for row in rows))
            done |= {row.qid: row for row in rows}
        if on_progress is not None:
            on_progress(number + 1, len(videos), video.name)
    if not done:
        raise AnnotationError(f"{out}: nothing was said about any video\n{notes[0] if notes else ''}".rstrip())
    ordered = [done[qid] for qid in wanted if qid in done]
    if len(done) > num_known or not out.exists() or _differs(out, ordered):
        write_annotations(out, ordered)
    part.unlink(missing_ok=True)
    return SummariesResult(
        path=out, num_videos=len(videos), num_rows=len(ordered), num_made=len(done) - num_known, notes=tuple(notes)
    )


def _videos(annotations: Iterable[Annotation]) -> list[_ToldVideo]:
    by_name: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        if not annotation.is_absent:
            by_name.setdefault(annotation.video, []).append(annotation)
    if not by_name:
        raise AnnotationError("there is no sentence that happens in some video, so nothing to summarise")
    return [_video(name, told) for name, told in by_name.items()]


def _video(name: str, told: Sequence[Annotation]) -> _ToldVideo:
    ordered = sorted(told, key=lambda annotation: annotation.windows[:1] or ((float("inf"), 0.0),))
    first_as: dict[str, str] = {}
    for annotation in ordered:
        first_as.setdefault(words_of(annotation.query), annotation.query)
    sentences = tuple(first_as.values())
    facts = {key: value for key in KEPT_FACTS if (value := told[0].origin.get(key)) is not None}
    digest = hashlib.sha256(json.dumps([name, *sentences], ensure_ascii=False).encode()).hexdigest()
    durations_s = [annotation.duration_s for annotation in told if annotation.duration_s is not None]
    duration_s = durations_s[0] if durations_s else None
    return _ToldVideo(name=name, sentences=sentences, duration_s=duration_s, facts=facts, source=digest)


def _qid(video: _ToldVideo, level: Level) -> str:
    return f"{video.name}_{level.name}"


def _origin(video: _ToldVideo, level: Level, identity: Any) -> dict[str, Any]:
    """All that decides the text."""
    return {"level": level.name, **identity, "source": video.source}


def _rows(
    video: _ToldVideo,
    levels: Sequence[Level],
    summariser: Summariser,
    wanted: dict[str, dict[str, Any]],
    notes: list[str],
) -> list[Annotation]:
    rows: list[Annotation] = []
    for level in levels:
        summary = summariser.summarise(video.sentences, level)
        if not summary.text:
            notes.append(f"{video.name}: nothing was said at level {level.name}, so there is no such row")
            continue
        qid = _qid(video, level)
        used = {"num_sentences": len(video.sentences), "num_used": summary.num_used}
        rows.append(
            Annotation(
                qid=qid, video=video.name, query=summary.text, windows=(), is_labelled=False,
                duration_s=video.duration_s, origin=wanted[qid] | used | video.facts,
            )
        )  # fmt: skip
    return rows


def _known(out: Path, part: Path, wanted: dict[str, dict[str, Any]], *, overwrite: bool) -> dict[str, Annotation]:
    """Rows of an earlier run that this one would make again."""
    known: dict[str, Annotation] = {}
    if out.exists():
        there = _lenient_rows(out)
        known = {row.qid: row for row in there if _is_wanted(row, wanted)}
        if len(known) < len(there) and not overwrite:
            raise ConfigError(
                f"{out} holds {len(there) - len(known):,} rows that would not be made now (other sentences, model or level), "
                "and would be replaced\nadd --overwrite, or name another --out"
            )
        if not there and out.stat().st_size and not overwrite:
            raise ConfigError(f"{out} would be replaced\nadd --overwrite, or name another --out")
    if part.exists():
        known |= {row.qid: row for row in _lenient_rows(part) if _is_wanted(row, wanted)}
    return known


def _lenient_rows(path: Path) -> list[Annotation]:
    """What can be read: a kill may have torn the last line, and a foreign file holds no row of ours."""
    rows: list[Annotation] = []
    for line in raw_lines(path):
        try:
            rows.append(annotation_of(parse_row(line), ReadLog()))
        except BadRow:
            continue
    return rows


def _is_wanted(row: Annotation, wanted: dict[str, dict[str, Any]]) -> bool:
    origin = wanted.get(row.qid)
    return origin is not None and all(row.origin.get(key) == value for key, value in origin.items())


def _differs(out: Path, rows: Sequence[Annotation]) -> bool:
    return [row.qid for row in _lenient_rows(out)] != [row.qid for row in rows]


def _make_folder(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {out.parent}: {error.strerror or error}") from error
