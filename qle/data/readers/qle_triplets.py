"""The triplets that QLE was published with, both ways: one row for a frame, a query and whether it is relevant.

    frame_path,text_query,relevance_label
    .../extracted_frames/CHOLEC80__video01/frame_0000025.jpg,a grasper is present,1.0

Frames are numbered from 0 at 25 a second, and every 5th has rows: all of its positive queries and a few negative ones drawn
at random. So a frame without a row for a query is a frame where it does not happen, and positive frames `stride` apart are one
window, from the first frame until `stride` frames after the last. Published texts get their concept, so that the two texts
of the irrigator are never negatives of each other. The published files call some frames both relevant and
irrelevant to a text, because two labels had the same words: there the positive row holds, and the log counts them.

Millions of rows are read in blocks; of each row three small integers are kept (10 bytes).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qle.data.annotations import Annotation
from qle.data.readers.concepts import CONCEPT_OF_TEXT
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError, InputError

COLUMNS = ("frame_path", "text_query", "relevance_label")
FPS = 25.0
STRIDE = 5

_BLOCK_BYTES = 4 << 20
_FRAME = r"(?P<video>[^/\\]+)[/\\](?:[^/\\]*[^/\\0-9])?(?P<frame>[0-9]{1,9})\.[A-Za-z]+$"
_LABELS = {"1.0": 1, "1": 1, "0.0": 0, "0": 0, "True": 1, "False": 0}


@dataclass(slots=True)
class _TripletColumns:
    """All rows as numbers: which (video, query), which frame, and 1, 0."""

    pairs: dict[tuple[str, str], int]
    pair: np.ndarray
    frame: np.ndarray
    label: np.ndarray


def read(source: Path, log: ReadLog, *, fps: float = FPS, stride: int = STRIDE) -> list[Annotation]:
    """One annotation for each query that a video has rows of; queries that are never relevant in it have no windows."""
    rows = _read_rows(source, log)
    order = np.lexsort((-rows.label, rows.frame, rows.pair))
    pair, frame, label = rows.pair[order], rows.frame[order], rows.label[order]
    is_first = np.ones(len(pair), dtype=bool)
    is_first[1:] = (pair[1:] != pair[:-1]) | (frame[1:] != frame[:-1])
    num_both = int(np.count_nonzero(~is_first[1:] & (label[1:] != label[:-1])))
    if num_both:
        log.note(
            f"{num_both:,} frames are called relevant and irrelevant to the same words; they were taken as relevant"
        )
    keep = is_first & (label == 1)
    pair, frame = pair[keep], frame[keep]
    if len(frame) and (stray := np.flatnonzero(frame % stride)).size:
        raise AnnotationError(
            f"{source}: frame {frame[stray[0]]} is not one of every {stride}: give the stride that the file was made with"
        )
    bounds = np.searchsorted(pair, np.arange(len(rows.pairs) + 1))
    return [
        Annotation(
            qid=str(number), video=video, query=query, concept=CONCEPT_OF_TEXT.get(query.lower(), ""),
            windows=_windows(frame[bounds[number] : bounds[number + 1]], fps, stride),
        )
        for (video, query), number in rows.pairs.items()
    ]  # fmt: skip


def _windows(frames: np.ndarray, fps: float, stride: int) -> tuple[tuple[float, float], ...]:
    breaks = np.flatnonzero(np.diff(frames) > stride)
    starts = frames[np.concatenate([[0], breaks + 1])] if len(frames) else frames
    ends = frames[np.concatenate([breaks, [-1]])] + stride if len(frames) else frames
    return tuple((start / fps, end / fps) for start, end in zip(starts.tolist(), ends.tolist(), strict=True))


def _read_rows(source: Path, log: ReadLog) -> _TripletColumns:
    pairs: dict[tuple[str, str], int] = {}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    num_rows = 0
    for block in _blocks(source):
        videos, frames, queries, labels, is_wrong = _decode(block)
        for row in np.flatnonzero(is_wrong).tolist():
            log.bad(source, num_rows + row + 2, _reason(block, row))
        num_rows += len(is_wrong)
        parts.append((_number_pairs(pairs, videos, queries, ~is_wrong), frames[~is_wrong], labels[~is_wrong]))
    log.close(num_rows)
    if not pairs:
        raise log.nothing_left(f"{source} holds no row that can be used")
    return _TripletColumns(pairs, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def _blocks(source: Path) -> Iterator[Any]:
    """Tables of three columns of text."""
    import pyarrow as pa
    from pyarrow import csv

    as_text = csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), include_columns=list(COLUMNS))
    try:
        yield from csv.open_csv(
            source, read_options=csv.ReadOptions(block_size=_BLOCK_BYTES), convert_options=as_text
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot read annotations {source}: {error.strerror or error}") from error
    except (pa.ArrowInvalid, KeyError) as error:
        raise AnnotationError(f"{source}: expected a CSV with columns {', '.join(COLUMNS)}: {error}") from error


def _decode(block: Any) -> tuple[Any, np.ndarray, Any, np.ndarray, np.ndarray]:
    """Columns as dictionaries of words and numbers of frames, and which rows are wrong."""
    import pyarrow as pa
    from pyarrow import compute as pc

    paths, queries, labels = (block.column(name) for name in COLUMNS)
    groups = pc.extract_regex(paths, pattern=_FRAME)
    frames = pc.cast(pc.struct_field(groups, "frame"), pa.int64())
    known = pc.index_in(pc.utf8_trim_whitespace(labels), value_set=pa.array(list(_LABELS)))
    is_wrong = pc.or_(pc.or_(pc.is_null(frames), pc.is_null(known)), pc.equal(pc.utf8_trim_whitespace(queries), ""))
    values = np.array(list(_LABELS.values()), dtype=np.int8)[pc.fill_null(known, 0).to_numpy(zero_copy_only=False)]
    return (
        pc.struct_field(groups, "video").dictionary_encode(),
        pc.fill_null(frames, 0).to_numpy(zero_copy_only=False).astype(np.int32),
        queries.dictionary_encode(),
        values,
        is_wrong.to_numpy(zero_copy_only=False),
    )


def _number_pairs(pairs: dict[tuple[str, str], int], videos: Any, queries: Any, is_right: np.ndarray) -> np.ndarray:
    """A number for each (video, query); new ones are entered in the order in which they come."""
    video_names = [_video(name) for name in videos.dictionary.to_pylist()]
    texts = [text.strip() for text in queries.dictionary.to_pylist()]
    video = videos.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)[is_right]
    combined = video * max(len(texts), 1) + queries.indices.to_numpy(zero_copy_only=False)[is_right]
    distinct, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    numbers = np.empty(len(distinct), dtype=np.int32)
    for number in np.argsort(first).tolist():
        at_video, at_text = divmod(int(distinct[number]), max(len(texts), 1))
        numbers[number] = pairs.setdefault((video_names[at_video], texts[at_text]), len(pairs))
    return numbers[inverse]


def _video(folder: str) -> str:
    """CHOLEC80__video01 -> video01: the name of the data set is no part of the name of the video."""
    return folder.rpartition("__")[2] or folder


def _reason(block: Any, row: int) -> BadRow:
    path, query, label = (block.column(name)[row].as_py() for name in COLUMNS)
    if not re.search(_FRAME, path):
        return BadRow("frame_path", f"expected .../VIDEO/frame_NUMBER.jpg, got {path!r}")
    if label.strip() not in _LABELS:
        return BadRow("relevance_label", f"expected 1.0 or 0.0, got {label!r}")
    return BadRow("text_query", f"expected words, got {query!r}")
