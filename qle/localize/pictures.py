"""Pictures of answers: frames of the film fetched again, and maps painted onto them and written as PNG files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qle.cache.layout import safe_name
from qle.cache.reader import Video
from qle.cache.records import is_same_source
from qle.cache.sources import fingerprint
from qle.data.rows import RowChoice
from qle.errors import DecodeError, InputError
from qle.explain.explained import ExplainedPrediction
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
        for one in explained:
            inside = folder / _folder_name(one.prediction)
            inside.mkdir(parents=True, exist_ok=True)
            for shown in one.frames:
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


def _pictures(
    video: Video, choice: RowChoice, wanted: Sequence[np.ndarray], source: Path | None, max_side: int
) -> tuple[dict[int, np.ndarray], str]:
    """Frames by row, and why there are none."""
    rows = np.unique(np.concatenate([*wanted, np.zeros(0, np.int64)]))
    path = source or Path(video.record.source.path)
    if not len(rows):
        return {}, ""
    try:
        if not is_same_source(fingerprint(path), video.record.source.fingerprint):
            return {}, f"{path} is another file than the one that was extracted."
        numbers = video.index[choice.index[rows]]
        frames = frames_of(path, numbers, max_side=max_side)
    except (InputError, DecodeError) as error:
        return {}, str(error).splitlines()[0]
    return {int(row): frame for row, frame in zip(rows, frames, strict=True)}, ""
