"""CholecT50 and CholecT45: who does what to what, frame by frame -> intervals -> sentences.

    ROOT/labels/VIDNN.json   categories.triplet {id: "grasper,retract,gallbladder"}, annotations {frame: [15 numbers, ...]}

A vector begins with the id of the triplet (-1: none); numbers 3 to 6 are the box of the instrument's tip as left, top, width
and height in fractions of the picture (-1: not annotated). Frame k stands for k / fps to (k + 1) / fps. Labels are exhaustive,
so every triplet that the file knows is annotated for its video: one that never happens has no windows. The two graspers
of a picture give one interval and two boxes. Names come from the file's own `categories`, never from a list of ours.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qle.data.annotations import Annotation, FrameBox
from qle.data.readers.concepts import triplet_sentence
from qle.data.readers.text_rows import read_text
from qle.data.readlog import BadRow, ReadLog
from qle.errors import AnnotationError, InputError
from qle.inputs import parse_json
from qle.segments.spans import spans_of

VECTOR_LENGTH = 15
MOST_FRAMES = 10_000_000
"""Frames of a video; more are a damaged file, and arrays of that length would be made."""


def read(source: Path, log: ReadLog) -> list[Annotation]:
    """Annotations of every video that is there. `video` is VIDNN, as the folders of pictures are called."""
    files = [path for path in sorted(source.glob("labels/*.json")) if re.fullmatch(r"VID\d+", path.stem)]
    if not files:
        raise InputError(f"{source} holds no labels/VIDNN.json: name the folder of CholecT50")
    annotations: list[Annotation] = []
    for path in files:
        labels = _load(path)
        try:
            annotations += _annotations(path, labels)
        except BadRow as bad:
            log.bad(path, 1, bad)
    log.close(len(files))
    if not annotations:
        raise log.nothing_left(f"{source} holds no labels that can be used")
    return annotations


def video_number(video: str) -> int:
    """VID07 -> 7."""
    return int(video.removeprefix("VID"))


def _load(path: Path) -> dict[str, Any]:
    try:
        labels: dict[str, Any] = parse_json(read_text(path))
    except ValueError as error:
        raise AnnotationError(f"{path}: no JSON: {error}") from error
    for key, kind in (("fps", int | float), ("num_frames", int), ("categories", dict), ("annotations", dict)):
        if not isinstance(labels, dict) or not isinstance(labels.get(key), kind):
            raise AnnotationError(f"{path}: expected an object with {key}, as CholecT50 has it")
    return labels


def _annotations(path: Path, labels: Mapping[str, Any]) -> list[Annotation]:
    fps = float(labels["fps"])
    names = labels["categories"].get("triplet")
    if not isinstance(names, dict) or not names or not 0 < fps < math.inf:
        raise BadRow("categories", "no names of triplets, or no frames in a second")
    frames: dict[int, set[int]] = defaultdict(set)
    boxes: dict[int, list[FrameBox]] = defaultdict(list)
    for frame_name, vectors in labels["annotations"].items():
        frame = _whole("annotations", frame_name)
        if not isinstance(vectors, list):
            raise BadRow(f"annotations.{frame}", f"expected a list of vectors, got {vectors!r}")
        for vector in vectors:
            triplet = _triplet(frame, vector, names)
            if triplet >= 0:
                frames[triplet].add(frame)
                if (box := _box(frame, vector, fps)) is not None:
                    boxes[triplet].append(box)
    num_frames = max([labels["num_frames"], *(_whole("annotations", name) + 1 for name in labels["annotations"])])
    if not 0 < num_frames <= MOST_FRAMES:
        raise BadRow("num_frames", f"expected 1 to {MOST_FRAMES:,} frames, got {str(num_frames)[:80]}")
    edges_s = np.arange(num_frames + 1) / fps
    annotations = []
    for key, name in names.items():
        triplet = _whole("categories", key)
        is_happening = np.zeros(num_frames, dtype=bool)
        is_happening[list(frames[triplet])] = True
        annotations.append(
            Annotation(
                qid=f"{path.stem}/{triplet}", video=path.stem, query=_sentence(name), duration_s=num_frames / fps,
                windows=tuple((float(start_s), float(end_s)) for start_s, end_s in spans_of(is_happening, edges_s)),
                boxes=tuple(sorted(boxes[triplet], key=lambda box: (box.time_s, box.left))), concept=f"triplet/{name}",
            )
        )  # fmt: skip
    return annotations


def _sentence(name: Any) -> str:
    parts = name.split(",") if isinstance(name, str) else []
    if len(parts) != 3:
        raise BadRow("categories", f"expected instrument,verb,target, got {name!r}")
    return triplet_sentence(*parts)


def _triplet(frame: int, vector: Any, names: Mapping[str, str]) -> int:
    if not isinstance(vector, list) or len(vector) != VECTOR_LENGTH:
        raise BadRow(f"annotations.{frame}", f"expected vectors of {VECTOR_LENGTH} numbers, got {vector!r}")
    triplet = vector[0]
    if triplet != -1 and str(triplet) not in names:
        raise BadRow(f"annotations.{frame}", f"the categories know no triplet {triplet!r}")
    return int(triplet)


def _box(frame: int, vector: list[Any], fps: float) -> FrameBox | None:
    """The part of the box that lies in the picture."""
    left, top, width, height = vector[3:7]
    if not all(isinstance(part, int | float) for part in (left, top, width, height)):
        raise BadRow(f"annotations.{frame}", f"expected a box of four numbers, got {vector[3:7]!r}")
    if width <= 0 or height <= 0:
        return None
    right, bottom, left, top = min(left + width, 1.0), min(top + height, 1.0), max(left, 0.0), max(top, 0.0)
    if not (left < right and top < bottom):
        raise BadRow(f"annotations.{frame}", f"a box outside the picture: {vector[3:7]}")
    return FrameBox(time_s=frame / fps, left=left, top=top, right=right, bottom=bottom)


def _whole(key: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise BadRow(key, f"expected the number of a frame or triplet, got {text[:80]!r}")
    return int(text)
