"""Pictures of answers: frames of the film fetched again, and maps painted onto them and written as PNG files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from qle.cache.layout import safe_name
from qle.cache.reader import Video
from qle.cache.records import is_same_source
from qle.cache.sources import fingerprint
from qle.errors import DecodeError, InputError
from qle.explain.explained import ExplainedPrediction, ShownFilm
from qle.explain.maps import WHOLE
from qle.explain.overlay import LEGEND_GREY, overlay
from qle.explain.pictures import write_png
from qle.extract.source_frames import frames_of
from qle.types import Prediction

BARE_SIZE = (240, 320)
"""Pixels of a map that has no picture below it."""
MAX_SIDE = 960
"""Pixels of a frame that is kept for showing."""
MOST_QUERY_NAME = 80
"""Signs of a query in the name of a folder of pictures."""


def write_heatmaps(folder: Path, explained: Sequence[ExplainedPrediction]) -> list[Path]:
    """One picture a frame, `<video>__<query>/00012.400s.png`: the frame with its map, or the map alone where it is gone."""
    written = []
    try:
        for prediction in explained:
            inside = folder / _folder_name(prediction.prediction)
            inside.mkdir(parents=True, exist_ok=True)
            for shown in prediction.frames:
                if shown.relevance is None:
                    continue
                frame = np.full((*BARE_SIZE, 3), LEGEND_GREY, np.uint8) if shown.frame is None else shown.frame
                region = WHOLE if shown.frame is None else shown.region
                path = inside / f"{shown.time_s:09.3f}s.png"
                write_png(path, overlay(frame, shown.relevance, shown.scale, region))
                written.append(path)
    except OSError as error:
        raise InputError(
            f"{folder}: pictures cannot be written there ({error.strerror})\nchoose another --heatmaps"
        ) from error
    return written


def _folder_name(prediction: Prediction) -> str:
    """Sentences often begin alike, so one that is cut ends with a digest: no two queries share a folder."""
    query = safe_name(prediction.query)
    if len(query) > MOST_QUERY_NAME:
        digest = hashlib.sha256(prediction.query.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        query = f"{query[: MOST_QUERY_NAME - len(digest) - 1]}-{digest}"
    return f"{safe_name(prediction.video)}__{query}"


def with_frames(
    explained: Sequence[ExplainedPrediction], film: Video, *, source: Path | None, max_side: int
) -> list[ExplainedPrediction]:
    """The same with the pictures of their frames. A film that is gone costs the pictures, never the answer: maps are then shown
    alone, and a note says why. film: the cached video that was extracted from it. source: where the film lies now, if not where
    it was."""
    numbers = {frame.source_frame for prediction in explained for frame in prediction.frames}
    wanted = np.array(sorted(number for number in numbers if number is not None), np.int64)
    pictures, reason = _fetched(film, wanted, source, max_side)
    record = film.record.source
    shown = ShownFilm(path=source or Path(record.path), begin_s=record.start_s or 0.0) if pictures else None
    return [replace(_with_pictures(prediction, pictures, reason), film=shown) for prediction in explained]


def _with_pictures(
    prediction: ExplainedPrediction, pictures: Mapping[int, np.ndarray], reason: str
) -> ExplainedPrediction:
    """What has neither a picture nor a map shows nothing, and is left out."""
    frames = [
        frame if frame.source_frame is None else replace(frame, frame=pictures.get(frame.source_frame))
        for frame in prediction.frames
    ]
    kept = tuple(frame for frame in frames if frame.frame is not None or frame.relevance is not None)
    if not reason or not prediction.frames:
        return replace(prediction, frames=kept)
    lost = "Maps alone, without frames" if kept else "No frames"
    return replace(prediction, frames=kept, note=f"{lost}: {reason} {prediction.note}".strip())


def _fetched(film: Video, numbers: np.ndarray, source: Path | None, max_side: int) -> tuple[dict[int, np.ndarray], str]:
    """Pictures by their number in the film, and why there are none."""
    path = source or Path(film.record.source.path)
    if not len(numbers):
        return {}, ""
    try:
        if not is_same_source(fingerprint(path), film.record.source.fingerprint):
            return {}, f"{path} is another file than the one that was extracted."
        frames = frames_of(path, numbers, max_side=max_side)
    except (InputError, DecodeError) as error:
        return {}, str(error).splitlines()[0]
    return {int(number): frame for number, frame in zip(numbers, frames, strict=True)}, ""
