"""Annotations -> triplets of frame, query and label, the form that QLE was published with (data/readers/qle_triplets.py).

Every `stride`-th frame of every video gets a row for each query that happens at it and for a few that do not. Negatives are
drawn by concept: a synonym of what happens is never one, as it was in 9 % of the published frames.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from qle.data.annotations import Annotation
from qle.durable import name_beside, sync_file
from qle.errors import AnnotationError
from qle.segments.spans import mask_of

HEADER = ("frame_path", "text_query", "relevance_label")


def write_triplets(
    path: Path,
    annotations: Iterable[Annotation],
    *,
    fps: float = 25.0,
    stride: int = 5,
    num_negatives: int = 2,
    seed: int = 42,
    folder: str = "extracted_frames/CHOLEC80__",
) -> int:
    """Writes the table, returns the number of its rows. `folder` stands before the name of each video.

    A query that never happens in its video gets one row at least, so that reading the table knows of it.
    """
    by_video: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        if annotation.is_labelled:
            by_video.setdefault(annotation.video, []).append(annotation)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = name_beside(path)
    num_rows = 0
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(HEADER)
            for number, (video, asked) in enumerate(sorted(by_video.items())):
                rng = np.random.default_rng((seed, number))
                for frame, query, label in _rows(video, asked, fps, stride, num_negatives, rng):
                    table.writerow((f"{folder}{video}/frame_{frame:07d}.jpg", query, f"{label:.1f}"))
                    num_rows += 1
        if not num_rows:
            raise AnnotationError(f"{path}: no labelled annotations, so no triplets to write")
        sync_file(beside, "full")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_file(path.parent, "full")
    return num_rows


def _rows(
    video: str, asked: Sequence[Annotation], fps: float, stride: int, num_negatives: int, rng: np.random.Generator
) -> Iterator[tuple[int, str, int]]:
    labels = _labels(video, asked, fps, stride)
    concepts = sorted({annotation.concept_key for annotation in asked})
    of_query = np.array([concepts.index(annotation.concept_key) for annotation in asked])
    happens = np.stack([labels[of_query == number].any(axis=0) for number in range(len(concepts))])
    never_asked = {number for number in range(len(asked)) if not labels[number].any()}
    for step in range(labels.shape[1]):
        frame = step * stride
        for number in np.flatnonzero(labels[:, step]).tolist():
            yield frame, asked[number].query, 1
        quiet = np.flatnonzero(~happens[of_query, step])
        drawn = set(rng.permutation(quiet)[:num_negatives].tolist())
        drawn |= never_asked & set(quiet.tolist())
        never_asked -= drawn
        for number in sorted(drawn):
            yield frame, asked[number].query, 0


def _labels(video: str, asked: Sequence[Annotation], fps: float, stride: int) -> np.ndarray:
    """(queries, frames with rows) bool: a frame stands for the stretch up to the next one that has rows."""
    durations_s = {annotation.duration_s for annotation in asked if annotation.duration_s is not None}
    end_s = max([*durations_s, *(window[1] for annotation in asked for window in annotation.windows)], default=0.0)
    num_steps = int(np.ceil(round(end_s * fps / stride, 6)))
    if not num_steps:
        raise AnnotationError(f"video {video}: neither duration nor windows, so nobody knows how many frames it has")
    edges_s = np.arange(num_steps + 1) * (stride / fps)
    return np.stack([mask_of(annotation.windows, edges_s) for annotation in asked])
