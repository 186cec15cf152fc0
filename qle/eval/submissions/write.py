"""Predictions as rows of a QVHighlights submission, which other programs read."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from qle.types import Moment, Prediction

SALIENCY_CLIP_S = 2.0
"""Length of a clip in QVHighlights files, which have one score for each."""


def to_jsonl(predictions: Sequence[Prediction], names: Mapping[str, str] | None = None) -> str:
    """The QVHighlights submission format, one query a line; what it has no word for stands under `qle`.

    A query without moments still has one window, the best guess, as evaluators want it and as `qle eval` scores it: that
    it is absent stands in `pred_exist_score` alone.
    `names`: what the asking file calls a video, by its key. A query without a qid gets the number of its line.
    """
    lines = []
    for number, prediction in enumerate(predictions):
        moments = prediction.moments or (() if prediction.best is None else (prediction.best,))
        qid = number if prediction.qid is None else qid_value(prediction.qid)
        values = {
            "qid": qid,
            "query": prediction.query,
            "vid": (names or {}).get(prediction.video, prediction.video),
            "pred_relevant_windows": [_span(moment) for moment in moments],
            # More digits than people need: evaluators order clips by them, and ties cost.
            "pred_saliency_scores": [round(float(score), 9) for score in saliency(prediction)],
            "pred_exist_score": six_digits(prediction.presence),
            "qle": {"video": prediction.video, "duration_s": to_ms(prediction.duration_s), "clip_s": SALIENCY_CLIP_S},
        }
        lines.append(json.dumps(values, allow_nan=False))
    return "".join(line + "\n" for line in lines)


def saliency(prediction: Prediction, clip_s: float = SALIENCY_CLIP_S) -> np.ndarray:
    """(clips,) float64: mean probability over each clip, by the seconds that rows stand for; none without a track."""
    if prediction.track is None or prediction.probability is None:
        return np.zeros(0)
    edges_s = prediction.track.edges_s
    num_clips = max(1, int(np.ceil((prediction.duration_s - 1e-6) / clip_s)))
    # The integral of a staircase is linear between its steps, so its difference at clip borders is exact.
    area = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * np.nan_to_num(prediction.probability))])
    borders = np.minimum(np.arange(num_clips + 1) * clip_s, prediction.duration_s)
    length = np.maximum(np.diff(borders), 1e-9)
    means: np.ndarray = np.clip(np.diff(np.interp(borders, edges_s, area)) / length, 0.0, 1.0)
    return means


def _span(moment: Moment) -> list[float]:
    return [to_ms(moment.start_s), to_ms(moment.end_s), six_digits(moment.score)]


def to_ms(seconds: float) -> float:
    return round(float(seconds), 3) + 0.0  # + 0.0: never "-0.0"


def six_digits(value: float) -> float:
    return round(float(value), 6) + 0.0


def qid_value(qid: str) -> int | str:
    """Official annotation files number their queries, and official evaluators compare numbers."""
    return int(qid) if qid.isascii() and qid.isdigit() and str(int(qid)) == qid else qid
