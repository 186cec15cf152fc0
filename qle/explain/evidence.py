"""The rows that speak most for an answer, with their relevance maps: what pictures and reports show.

    answerer + cached video + predictions -> rows -> maps, from the cache                    -> ExplainedPrediction
    the same of heads that have no maps   -> clips                                           -> ExplainedPrediction

Which rows they are says best_rows.py. All maps of a query have one scale, taken from rows all over the video. Nothing is decoded
here: localize/pictures.py fetches the pictures from the film.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qle.cache.reader import Video
from qle.data.rows import RowChoice, choose_rows
from qle.explain.attribution import attributions_of
from qle.explain.best_rows import best_rows
from qle.explain.explained import ExplainedFrame, ExplainedPrediction
from qle.explain.maps import WHOLE, Region, robust_scale
from qle.runs.videos import CachedVideo
from qle.segments.spans import rows_of
from qle.tasks.answering import Answerer
from qle.tasks.rows.scoring import RowScorer
from qle.types import Prediction

SCALE_ROWS = 24
"""Rows all over the video whose maps, with those that are shown, set the scale of a query."""
MAP_QUERIES = 4
"""Queries whose maps are read in one pass."""
CROPPED_NOTE = "Black borders were cut before the model saw the frames: maps may lie beside their places."
IMPORTED_NOTE = "No frames: the features were imported, so that the film is not known."


def explain(
    answerer: Answerer,
    cached: CachedVideo,
    predictions: Sequence[Prediction],
    *,
    num_frames: int,
    with_attribution: bool = True,
) -> list[ExplainedPrediction]:
    """Each prediction (all of this video) with the rows that speak most for it, and their maps where the head has them. The
    pictures are fetched from the film elsewhere. Attribution costs a second reading of the video."""
    if answerer.maps is None:
        return [_clips(answerer.films(cached), prediction, num_frames) for prediction in predictions]
    preprocess = answerer.run.record.space.hashed.get("preprocess") or {}
    return explain_rows(
        answerer.maps, cached.video, predictions, preprocess=preprocess, num_frames=num_frames,
        with_attribution=with_attribution,
    )  # fmt: skip


def explain_rows(
    scorer: RowScorer,
    video: Video,
    predictions: Sequence[Prediction],
    *,
    preprocess: Mapping[str, Any],
    num_frames: int,
    with_attribution: bool = True,
) -> list[ExplainedPrediction]:
    """Each prediction with its best rows and their maps. `preprocess`: of the space, for where the map lies in the picture."""
    choice = choose_rows(video, scorer.rate_fps)
    note = CROPPED_NOTE if preprocess.get("crop_borders") else ""
    region = region_of(video, preprocess)
    shown = [best_rows(prediction, num_frames) for prediction in predictions]
    all_maps = _maps(scorer, video, choice, predictions, shown)
    attributions = attributions_of(scorer, video, predictions) if with_attribution else [None] * len(predictions)
    explained = []
    for prediction, rows, maps, attribution in zip(predictions, shown, all_maps, attributions, strict=True):
        scale = robust_scale(maps)
        probability = prediction.probability
        frames = tuple(
            ExplainedFrame(
                time_s=float(choice.times_s[row]), source_frame=int(video.index[choice.index[row]]), relevance=maps[number],
                scale=scale, probability=None if probability is None else float(probability[row]), region=region,
            )
            for number, row in enumerate(rows)
        )  # fmt: skip
        explained.append(
            ExplainedPrediction(
                prediction=prediction, frames=frames, scale=scale, note=note, attribution=attribution
            )
        )  # fmt: skip
    return explained


def _maps(
    scorer: RowScorer, video: Video, choice: RowChoice, predictions: Sequence[Prediction], shown: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each prediction the maps of the rows that it shows, and behind them those of rows all over the video.

    A few queries are asked at once about the rows of all of them: some maps too many cost less than further passes.
    """
    spread = np.unique(np.linspace(0, choice.num_rows - 1, SCALE_ROWS).round().astype(int))
    maps: list[np.ndarray] = []
    for first in range(0, len(predictions), MAP_QUERIES):
        group, own = predictions[first : first + MAP_QUERIES], shown[first : first + MAP_QUERIES]
        rows = np.unique(np.concatenate([*own, spread]))
        read = scorer.maps(video, tuple(prediction.query for prediction in group), rows)
        maps += [
            maps_of_query[np.searchsorted(rows, np.concatenate([rows_shown, spread]))]
            for maps_of_query, rows_shown in zip(read, own, strict=True)
        ]
    return maps


def _clips(films: Sequence[Video], prediction: Prediction, num_frames: int) -> ExplainedPrediction:
    """A prediction with its best clips, of a head that has no maps. The film is that of the first space that was extracted from
    one."""
    film = next((video for video in films if video.record.source.codec), None)
    if film is None:
        return ExplainedPrediction(prediction=prediction, note=IMPORTED_NOTE)
    choice = choose_rows(film, None)
    track, probability = prediction.track, prediction.probability
    if track is None:
        return ExplainedPrediction(prediction=prediction)
    times_s = track.times_s[best_rows(prediction, num_frames)]
    frames = []
    for row in np.unique(np.array([rows_of(time_s, time_s, choice.edges_s).start for time_s in times_s], np.int64)):
        time_s = float(choice.times_s[row])
        clip = rows_of(time_s, time_s, track.edges_s).start
        frames.append(
            ExplainedFrame(
                time_s=time_s, source_frame=int(film.index[choice.index[row]]), relevance=None, scale=0.0,
                probability=None if probability is None else float(probability[clip]),
            )
        )  # fmt: skip
    return ExplainedPrediction(prediction=prediction, frames=tuple(frames))


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
