"""The neutral annotation: one query about one video, and when it happens there. numpy and the standard library only.

Whatever a dataset looks like, its reader makes these; everything later (training, evaluation, floors) knows nothing else.
On disk: JSONL in the QVHighlights keys (`qid`, `query`, `vid`, `duration`, `relevant_windows`, `relevant_clip_ids`,
`saliency_scores`); what those have no word for (`split`, `concept`, `boxes`, `masks`, `origin`) stands in one nested object
`qle`.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qle.data.readlog import BadRow, ReadLog
from qle.durable import replace_file
from qle.errors import AnnotationError, InputError
from qle.inputs import parse_json, read_input_bytes, utf8_bytes

Window = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBox:
    """Where the thing is at one time. Fractions of the picture: 0, 0 is the upper left corner, 1, 1 the lower right."""

    time_s: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A query about a video. No windows: it is known that the query does not happen in this video."""

    qid: str
    video: str
    """Key in the cache, or a part of it that only one key has (the stem of the file)."""
    query: str
    windows: tuple[Window, ...]
    """Sorted, (start, end) in seconds from the beginning of the video (of the clip, where a manifest lists clips)."""
    duration_s: float | None = None
    saliency: np.ndarray | None = None
    """(clips, raters) float32, NaN where nobody rated: scores of clips of `clip_s` seconds from the beginning on."""
    clip_s: float = 2.0
    boxes: tuple[FrameBox, ...] = ()
    masks: str = ""
    """Where pixel masks of the thing lie: "masks/video.npz:name", relative to the annotation file (data/masks.py)."""
    split: str = ""
    """train, val, test, or a name of the dataset's own (composition, paraphrase); "" where the file is the split."""
    concept: str = ""
    """Queries with the same concept mean the same (synonyms, paraphrases) and are never negatives of each other.
    "" means: the query's own words, case and spaces aside."""
    is_labelled: bool = True
    """False: nobody has told when it happens (a hidden test set, a caption of a whole video). No windows then says nothing,
    and no moment is trained or measured with it; readers give such rows only to those who ask for them."""
    origin: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """JSON: what its source says besides (`domain`, `fps`), or how a made query came about (model, prompt). For people, and
    for writers of the source's own format; it changes no meaning."""

    @property
    def concept_key(self) -> str:
        return self.concept or words_of(self.query)

    @property
    def is_present(self) -> bool:
        return bool(self.windows)

    @property
    def is_absent(self) -> bool:
        """It is known that the query does not happen in this video."""
        return self.is_labelled and not self.windows


def words_of(query: str) -> str:
    """The query's own words, case and spaces aside."""
    return " ".join(query.lower().split()).rstrip(".")


EDGE_SLACK_S = 0.5
"""A window may reach so far past an end of its video, as rounded times do, and is cut there; further out it is an error."""

_KEYS = ("qid", "query", "vid", "duration", "relevant_windows", "relevant_clip_ids", "saliency_scores", "qle")
_MOST_CLIPS = 10_000_000
_OWN_KEYS = ("split", "concept", "boxes", "masks", "clip_s", "num_clips", "origin")
_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:[/\\]|(?:^|[/\\])\.\.(?:[/\\]|$)|\x00")


def read_annotations(
    path: Path | str, *, allow_unlabelled: bool = False, log: ReadLog | None = None
) -> list[Annotation]:
    """The annotations of a JSONL file, in its order. Wrong rows: AnnotationError with file, line, key and reason.

    Rows without `relevant_windows` (hidden test sets) are refused unless `allow_unlabelled`. Whoever wants to hear what was
    cut or left out passes a log, and gets the error for wrong rows from here all the same.
    """
    path, log = Path(path), log or ReadLog()
    annotations: list[Annotation] = []
    first_lines: dict[str, int] = {}
    ignored: set[str] = set()
    num_rows = 0
    lines = raw_lines(path)
    for line, content in enumerate(lines, start=1):
        if not content.strip():
            continue
        num_rows += 1
        try:
            row = parse_row(content)
            annotation = annotation_of(row, log)
            if first_lines.setdefault(annotation.qid, line) != line:
                raise BadRow("qid", f"{annotation.qid!r} stands in line {first_lines[annotation.qid]} too")
            if not (annotation.is_labelled or allow_unlabelled):
                raise BadRow("relevant_windows", "missing, so nobody knows when it happens; [] says that it never does")
        except BadRow as bad:
            log.bad(path, line, bad)
            continue
        ignored.update(row.keys() - _KEYS)
        annotations.append(annotation)
    if num_rows and not annotations:
        _refuse_document(path, b"\n".join(lines))
    if ignored:
        log.note(f"{path}: keys that mean nothing here: {', '.join(sorted(ignored))}")
    log.close(num_rows)
    if not annotations:
        raise log.nothing_left(f"{path} holds no annotation that can be used")
    return annotations


def write_annotations(path: Path | str, annotations: Iterable[Annotation]) -> None:
    """One row an annotation, as `read_annotations` reads it; the file is replaced at once or not at all.

    Refuses what would be refused on reading: wrong windows, NaN, the same qid twice, no annotation at all.
    """
    path, lines, qids = Path(path), list[str](), set[str]()
    for annotation in annotations:
        try:
            row = row_of(annotation)
            annotation_of(row, ReadLog())
            if annotation.qid in qids:
                raise BadRow("qid", f"{annotation.qid!r} is there twice")
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
        except BadRow as bad:
            raise AnnotationError(
                f"{path}: annotation {annotation.qid!r} of {annotation.video!r}, {bad.key}: {bad.reason}"
            ) from bad
        qids.add(annotation.qid)
    if not lines:
        raise AnnotationError(f"{path}: no annotations to write")
    replace_file(path, ("\n".join(lines) + "\n").encode())


def annotation_of(row: Mapping[str, Any], log: ReadLog) -> Annotation:
    """One row of the file. Raises BadRow."""
    own = checked_object("qle", {} if row.get("qle") is None else row["qle"])
    if unknown := own.keys() - _OWN_KEYS:
        raise BadRow("qle", f"knows {', '.join(_OWN_KEYS)}, got {', '.join(sorted(map(str, unknown)))}")
    duration_s = None if row.get("duration") is None else checked_number("duration", row["duration"])
    if duration_s is not None and duration_s <= 0:
        raise BadRow("duration", f"expected more than 0 s, got {duration_s}")
    windows = row.get("relevant_windows")
    clip_s = checked_number("qle.clip_s", own.get("clip_s", 2.0))
    if clip_s <= 0:
        raise BadRow("qle.clip_s", f"expected more than 0 s, got {clip_s}")
    return Annotation(
        qid=checked_name("qid", row.get("qid")),
        video=checked_video("vid", row.get("vid")),
        query=checked_text("query", row.get("query")),
        windows=() if windows is None else checked_windows(windows, duration_s, log),
        duration_s=duration_s,
        saliency=_saliency(row, own, clip_s, duration_s),
        clip_s=clip_s,
        boxes=tuple(_box(box) for box in checked_list("qle.boxes", own.get("boxes", []))),
        masks=checked_text("qle.masks", own["masks"]) if "masks" in own else "",
        split=checked_text("qle.split", own["split"]) if "split" in own else "",
        concept=checked_text("qle.concept", own["concept"]) if "concept" in own else "",
        is_labelled=windows is not None,
        origin=checked_object("qle.origin", own["origin"]) if "origin" in own else {},
    )


def checked_video(key: str, value: Any) -> str:
    """The name of a video as a file gives it. BadRow also for one that leads out of the folder of the videos."""
    name = checked_name(key, value)
    if _OUTSIDE.search(name):
        raise BadRow(key, f"expected a name below the folder of the videos, got {name[:80]!r}")
    return name


def checked_windows(
    windows: Any, duration_s: float | None, log: ReadLog, *, slack_s: float = EDGE_SLACK_S
) -> tuple[Window, ...]:
    """Sorted windows inside the video; raises BadRow. Windows that overlap stay apart: benchmarks count them one by one."""
    key = "relevant_windows"
    checked: list[Window] = []
    for window in checked_list(key, windows):
        if not isinstance(window, list | tuple) or len(window) != 2:
            raise BadRow(key, f"expected [start, end] in seconds, got {window!r}")
        start_s, end_s = checked_number(key, window[0]), checked_number(key, window[1])
        if end_s <= start_s:
            raise BadRow(key, f"[{start_s:g}, {end_s:g}] does not end after it starts")
        outside_s = max(-start_s, end_s - duration_s if duration_s is not None else 0.0)
        if outside_s > 0:
            inside = (max(start_s, 0.0), end_s if duration_s is None else min(end_s, duration_s))
            if outside_s > slack_s or inside[0] >= inside[1]:
                video = "the video" if duration_s is None else f"the video of {duration_s:g} s"
                raise BadRow(key, f"[{start_s:g}, {end_s:g}] reaches {outside_s:.3g} s out of {video}")
            log.cut(outside_s)
            start_s, end_s = inside
        checked.append((start_s, end_s))
    return tuple(sorted(checked))


def row_of(annotation: Annotation) -> dict[str, Any]:
    """The row of the file. Numeric qids are numbers again, as the datasets' own tools expect them."""
    row: dict[str, Any] = {
        "qid": qid_to_json(annotation.qid),
        "query": annotation.query,
        "duration": annotation.duration_s,
        "vid": annotation.video,
    }
    own: dict[str, Any] = {
        name: value for name in ("split", "concept", "masks") if (value := getattr(annotation, name))
    }  # fmt: skip
    if annotation.duration_s is None:
        del row["duration"]
    if annotation.is_labelled:
        row["relevant_windows"] = [list(window) for window in annotation.windows]
    elif annotation.windows:
        raise BadRow("windows", "there are some, and yet it is marked as not labelled")
    if annotation.origin:
        own["origin"] = dict(annotation.origin)
    if annotation.clip_s != 2.0:
        own["clip_s"] = annotation.clip_s
    if annotation.boxes:
        own["boxes"] = [[box.time_s, box.left, box.top, box.right, box.bottom] for box in annotation.boxes]
    if annotation.saliency is not None:
        rated = ~np.isnan(annotation.saliency).all(axis=1)
        row["relevant_clip_ids"] = np.flatnonzero(rated).tolist()
        row["saliency_scores"] = [[_score(score) for score in clip] for clip in annotation.saliency[rated].tolist()]
        own["num_clips"] = len(annotation.saliency)
    return row | ({"qle": own} if own else {})


def qid_to_json(qid: str) -> int | str:
    """The number where the text is one: QVHighlights numbers its queries, and its tools compare them as numbers."""
    return int(qid) if qid.isascii() and qid.isdigit() and len(qid) < 16 and str(int(qid)) == qid else qid


def raw_lines(path: Path) -> list[bytes]:
    """The lines of a JSONL file; a byte order mark is dropped."""
    try:
        return utf8_bytes(read_input_bytes(path)).split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read annotations {path}: {error.strerror or error}") from error


def _refuse_document(path: Path, content: bytes) -> None:
    """A whole file that is one list or one object would make every line of it a wrong row."""
    try:
        document = parse_json(content)
    except ValueError:
        return
    if isinstance(document, dict) and document.keys() & {"qid", "query", "vid", "relevant_windows"}:
        return  # one row, and wrong
    if isinstance(document, dict | list):
        kind = (
            f"a list of {len(document):,}" if isinstance(document, list) else f"an object of {len(document):,} entries"
        )
        raise AnnotationError(
            f"{path} is one JSON document ({kind}), expected JSON Lines: one object a line\n"
            "write every annotation on a line of its own, with keys qid, query, vid, relevant_windows"
        )


def parse_row(content: bytes) -> dict[str, Any]:
    """One line of a JSONL file. Raises BadRow."""
    try:
        row = parse_json(content, parse_constant=refuse_constant)
    except ValueError as error:  # also wrong UTF-8, the NaN refused below, a million brackets
        raise BadRow("row", f"no JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRow("row", f"expected one JSON object a line, got {type(row).__name__}")
    return row


def refuse_constant(name: str) -> float:
    """For JSON decoders: Python's own would take NaN and Infinity, which are no JSON."""
    raise ValueError(f"{name} is no number")


# What a JSON value must be; each raises BadRow.


def checked_number(key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise BadRow(key, f"expected a finite number, got {repr(value)[:80]}")
    return number


def checked_text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRow(key, "missing" if value is None else f"expected words, got {value!r}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRow(key, f"{value!r} is no Unicode text") from error
    return value


def checked_name(key: str, value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else checked_text(key, value)


def checked_list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRow(key, f"expected a list, got {value!r}")
    return value


def checked_object(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRow(key, f"expected an object, got {repr(value)[:80]}")
    return value


def _box(value: Any) -> FrameBox:
    if not isinstance(value, list) or len(value) != 5:
        raise BadRow("qle.boxes", f"expected [time, left, top, right, bottom], got {value!r}")
    time_s, left, top, right, bottom = (checked_number("qle.boxes", part) for part in value)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1 and time_s >= 0):
        raise BadRow("qle.boxes", f"expected fractions of the picture, left < right, top < bottom, got {value}")
    return FrameBox(time_s=time_s, left=left, top=top, right=right, bottom=bottom)


def _saliency(
    row: Mapping[str, Any], own: Mapping[str, Any], clip_s: float, duration_s: float | None
) -> np.ndarray | None:
    """Scores stand beside the numbers of their clips; here every clip has a row, NaN where nobody rated."""
    if row.get("saliency_scores") is None or not (row["saliency_scores"] or "num_clips" in own):
        return None
    scores = [_scores(clip) for clip in checked_list("saliency_scores", row["saliency_scores"])]
    clips = checked_list("relevant_clip_ids", row.get("relevant_clip_ids", list(range(len(scores)))))
    if len(clips) != len(scores):
        raise BadRow("saliency_scores", f"{len(scores)} for {len(clips)} relevant_clip_ids")
    if not all(isinstance(clip, int) and not isinstance(clip, bool) for clip in clips) or len(set(clips)) < len(clips):
        raise BadRow("relevant_clip_ids", f"expected different whole numbers, got {clips}")
    num_clips = own.get("num_clips")
    if num_clips is None:
        num_clips = max(clips, default=-1) + 1 if duration_s is None else _num_clips(duration_s, clip_s)
    elif isinstance(num_clips, bool) or not isinstance(num_clips, int) or not 0 <= num_clips <= _MOST_CLIPS:
        raise BadRow("qle.num_clips", f"expected a whole number of at most {_MOST_CLIPS:,}, got {str(num_clips)[:80]}")
    if not all(0 <= clip < min(num_clips, _MOST_CLIPS) for clip in clips):
        raise BadRow("relevant_clip_ids", f"the video has {num_clips:,} clips of {clip_s:g} s, got {clips}")
    saliency = np.full((num_clips, max(map(len, scores), default=1)), np.nan, dtype=np.float32)
    for clip, values in zip(clips, scores, strict=True):
        saliency[clip, : len(values)] = values
    return saliency


def _num_clips(duration_s: float, clip_s: float) -> int:
    if duration_s / clip_s > _MOST_CLIPS:  # an array of that length would be made
        raise BadRow("saliency_scores", f"a video of {duration_s:g} s has too many clips of {clip_s:g} s")
    return math.ceil(duration_s / clip_s)


def _scores(clip: Any) -> list[float]:
    raters = clip if isinstance(clip, list) else [clip]
    return [math.nan if score is None else checked_number("saliency_scores", score) for score in raters]


def _score(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value
