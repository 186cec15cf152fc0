"""Pictures of answers: frames of the film fetched again, maps painted onto them, written as PNG files or encoded for the page.

    explained predictions of a video + its film -> frames decoded once for all of them -> PNG files, pictures of the page

This is done in threads of its own while the next videos are scored: decoding and encoding need another core than the head, and
what is waiting is bounded, as is what is kept: a page of a thousand videos holds encoded pictures of a few kilobytes each.
"""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from qle.cache.layout import safe_name
from qle.cache.reader import Video
from qle.cache.records import is_same_source
from qle.cache.sources import fingerprint
from qle.errors import DecodeError, InputError
from qle.explain.explained import ExplainedFrame, ExplainedPrediction, ShownFilm
from qle.explain.maps import WHOLE
from qle.explain.overlay import LEGEND_GREY, overlay
from qle.explain.pictures import PAGE_SIDE, encoded, write_png
from qle.extract.source_frames import frames_of
from qle.runtime import num_cores
from qle.types import Prediction

BARE_SIZE = (240, 320)
"""Pixels of a map that has no picture below it."""
MAX_SIDE = 960
"""Pixels of a frame that is kept for showing."""
MOST_QUERY_NAME = 80
"""Signs of a query in the name of a folder of pictures."""
MOST_THREADS = 8
"""Videos whose pictures are made at the same time, at most; fewer cores make fewer."""
WAITING = 2
"""Videos a thread that may wait for their pictures: what they hold is small, but there may be thousands of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustrated:
    """The explained predictions of a video with their pictures."""

    explained: list[ExplainedPrediction]
    files: list[list[Path]]
    """The PNG files of each of them."""


class Illustrator:
    """Makes the pictures of one video after the other beside the work of the caller. Use it in a `with` statement."""

    def __init__(self, *, heatmaps: Path | None, has_page: bool) -> None:
        """heatmaps: the folder for PNG files. has_page: whether pictures are encoded for a page."""
        self._heatmaps, self._has_page = heatmaps, has_page
        self._threads = min(num_cores(), MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="pictures")
        self._waiting: deque[Future[Illustrated]] = deque()
        self._made: list[Illustrated] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, explained: Sequence[ExplainedPrediction], film: Video, source: Path | None) -> None:
        """The predictions of one video; returns at once, unless many videos are waiting. Raises the error of an earlier one."""
        while len(self._waiting) >= self._threads * WAITING:
            self._made.append(self._waiting.popleft().result())
        self._waiting.append(self._pool.submit(self._illustrated, explained, film, source))

    def finish(self) -> list[Illustrated]:
        """All videos, in the order in which they were added."""
        while self._waiting:
            self._made.append(self._waiting.popleft().result())
        return self._made

    def _illustrated(self, explained: Sequence[ExplainedPrediction], film: Video, source: Path | None) -> Illustrated:
        max_side = PAGE_SIDE if self._heatmaps is None else MAX_SIDE
        shown = with_frames(explained, film, source=source, max_side=max_side)
        files = [[] if self._heatmaps is None else write_heatmaps(self._heatmaps, [answer]) for answer in shown]
        frames = [tuple(self._kept(frame) for frame in answer.frames) for answer in shown]
        kept = [replace(answer, frames=own) for answer, own in zip(shown, frames, strict=True)]
        return Illustrated(explained=kept, files=files)

    def _kept(self, frame: ExplainedFrame) -> ExplainedFrame:
        return encoded(frame) if self._has_page else replace(frame, frame=None)


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
