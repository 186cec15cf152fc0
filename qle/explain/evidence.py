"""The frames that speak most for an answer, with their relevance maps: what pictures and reports show.

    scorer + cached video + predictions -> rows -> maps (from the cache) + frames (from the source video) -> ExplainedPrediction
             cached video + predictions -> clips -> frames, of heads that have no maps                   -> ExplainedPrediction

Which rows are shown says best_rows.py. All maps of a query have one scale, taken from rows all over the video. Frames are decoded
while maps are computed. A source that is gone costs the pictures, never the answer: the maps are shown alone and a note says why.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from qle.cache.reader import Video
from qle.data.rows import RowChoice, choose_rows
from qle.explain.attribution import attributions_of
from qle.explain.best_rows import best_rows
from qle.explain.explained import ExplainedFrame, ExplainedPrediction, ShownFilm
from qle.explain.maps import WHOLE, Region, robust_scale
from qle.localize.pictures import MAX_SIDE, _pictures
from qle.segments.spans import rows_of
from qle.tasks.rows.scoring import RowScorer
from qle.types import Prediction

SCALE_ROWS = 24
"""Rows all over the video whose maps, with those that are shown, set the scale of a query."""
MAP_QUERIES = 4
"""Queries whose maps are read in one pass."""
IMPORTED_NOTE = "No frames: the features were imported, so that the film is not known."


def explain_frames(
    scorer: RowScorer,
    video: Video,
    predictions: Sequence[Prediction],
    *,
    preprocess: Mapping[str, Any],
    num_frames: int,
    source: Path | None = None,
    max_side: int = MAX_SIDE,
    with_attribution: bool = True,
) -> list[ExplainedPrediction]:
    """Each prediction (all of this video) with its best frames. `preprocess`: of the space, for where the map lies in the
    picture. `source`: where the film lies now, if not where it was. Attribution costs a second reading of the video."""
    choice = choose_rows(video, scorer.rate_fps)
    wanted = [best_rows(prediction, num_frames) for prediction in predictions]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-frames") as reader:
        reading = reader.submit(_pictures, video, choice, wanted, source, max_side)
        all_maps = _maps(scorer, video, choice, predictions, wanted)
        attributions = attributions_of(scorer, video, predictions) if with_attribution else [None] * len(predictions)
        pictures, reason = reading.result()
    note = f"Maps alone, without frames: {reason}" if reason else ""
    region = region_of(video, preprocess)
    if preprocess.get("crop_borders"):
        note = (
            f"{note} Black borders were cut before the model saw the frames: maps may lie beside their places.".strip()
        )
    explained = []
    for prediction, rows, maps, attribution in zip(predictions, wanted, all_maps, attributions, strict=True):
        scale = robust_scale(maps)
        probability = prediction.probability
        frames = tuple(
            ExplainedFrame(
                time_s=float(choice.times_s[row]), frame=pictures.get(int(row)), relevance=maps[place], scale=scale,
                probability=None if probability is None else float(probability[row]), region=region,
            )
            for place, row in enumerate(rows)
        )  # fmt: skip
        explained.append(
            ExplainedPrediction(
                prediction=prediction, frames=frames, scale=scale, note=note, attribution=attribution,
                film=_film(video, source) if pictures else None,
            )
        )  # fmt: skip
    return explained


def _maps(
    scorer: RowScorer, video: Video, choice: RowChoice, predictions: Sequence[Prediction], wanted: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each prediction the maps of its own rows, and behind them those of rows all over the video.

    A few queries are asked at once about the rows of all of them: some maps too many cost less than further passes.
    """
    spread = np.unique(np.linspace(0, choice.num_rows - 1, SCALE_ROWS).round().astype(int))
    maps: list[np.ndarray] = []
    for first in range(0, len(predictions), MAP_QUERIES):
        group, own = predictions[first : first + MAP_QUERIES], wanted[first : first + MAP_QUERIES]
        rows = np.unique(np.concatenate([*own, spread]))
        found = scorer.maps(video, tuple(prediction.query for prediction in group), rows)
        maps += [
            maps_of[np.searchsorted(rows, np.concatenate([shown, spread]))]
            for maps_of, shown in zip(found, own, strict=True)
        ]
    return maps


def show_frames(
    videos: Sequence[Video], predictions: Sequence[Prediction], *, num_frames: int, source: Path | None, max_side: int
) -> list[ExplainedPrediction]:
    """Each prediction (all of one video) with frames alone. `videos`: the same one in every space; its film is taken from the
    first that was extracted from one."""
    video = next((one for one in videos if one.record.source.codec), None)
    if video is None:
        return [ExplainedPrediction(prediction=prediction, note=IMPORTED_NOTE) for prediction in predictions]
    choice = choose_rows(video, None)
    shown = []
    for prediction in predictions:
        track = prediction.track
        times = np.zeros(0) if track is None else track.times_s[best_rows(prediction, num_frames)]
        shown.append(np.array([rows_of(time_s, time_s, choice.edges_s).start for time_s in times], np.int64))
    pictures, reason = _pictures(video, choice, shown, source, max_side)
    note = f"No frames: {reason}" if reason else ""
    return [
        ExplainedPrediction(
            prediction=prediction, note=note, film=_film(video, source) if pictures else None,
            frames=tuple(_bare_frame(prediction, float(choice.times_s[row]), pictures[row]) for row in rows if row in pictures),
        )
        for prediction, rows in zip(predictions, (np.unique(rows).tolist() for rows in shown), strict=True)
    ]  # fmt: skip


def _bare_frame(prediction: Prediction, time_s: float, frame: np.ndarray) -> ExplainedFrame:
    track, probability = prediction.track, prediction.probability
    assert track is not None
    clip = rows_of(time_s, time_s, track.edges_s).start
    said = None if probability is None else float(probability[clip])
    return ExplainedFrame(time_s=time_s, frame=frame, relevance=None, scale=0.0, probability=said)


def region_of(video: Video, preprocess: Mapping[str, Any]) -> Region:
    """The part of the picture that the patch map covers, by the preprocessing of the space and the size of the source."""
    source = video.record.source
    if not source.width or not source.height or preprocess.get("resize") in (None, "squash"):
        return WHOLE
    height, width = int(preprocess["height"]), int(preprocess["width"])
    ratios = height / source.height, width / source.width
    if preprocess["resize"] == "letterbox":
        factor = min(ratios)
    elif preprocess.get("resize_to"):
        factor = preprocess["resize_to"] / min(source.height, source.width)
    else:
        factor = max(ratios)
    # What the model saw, measured in pictures: less than one where a middle was cut, more where black was added.
    seen_high, seen_wide = ratios[0] / factor, ratios[1] / factor
    return Region(
        top=0.5 - seen_high / 2, bottom=0.5 + seen_high / 2, left=0.5 - seen_wide / 2, right=0.5 + seen_wide / 2
    )


def _film(video: Video, source: Path | None) -> ShownFilm:
    record = video.record.source
    return ShownFilm(path=source or Path(record.path), begin_s=record.start_s or 0.0)
