"""Which rows of a video are shown for an answer: the best of each moment, apart from one another.

    Prediction (track, probabilities, moments) + how many pictures -> numbers of rows, in order of time

Neighbouring rows show the same scene, and six pictures of one scene say no more than one. So rows that are shown are APART of
each other in time, whichever moment they are taken from, and a short moment has fewer pictures rather than the same one again.
"""

import numpy as np

from qle.segments.spans import rows_of
from qle.types import Prediction

LEAST_APART_S = 1.5
"""Seconds between two rows that are shown: what moves has moved by then."""
MOST_APART_S = 5.0
"""The same in long videos, where moments are long too."""
APART_SHARE = 1 / 60
"""Part of the length of the video that lies between two shown rows, where it is between these two numbers of seconds."""


def best_rows(prediction: Prediction, most: int) -> np.ndarray:
    """At most that many numbers of usable rows, in order of time: the best of each moment, then the next best, and so on.

    Where nothing was found, the rows of the whole video that came closest.
    """
    track, probability = prediction.track, prediction.probability
    if track is None or probability is None or not track.valid.any():
        return np.zeros(0, np.int64)
    apart_s = float(np.clip(prediction.duration_s * APART_SHARE, LEAST_APART_S, MOST_APART_S))
    spans = [rows_of(moment.start_s, moment.end_s, track.edges_s) for moment in prediction.moments[:most]]
    ranked = [_best_first(probability, track.valid, span) for span in spans or [slice(0, len(probability))]]
    chosen: list[int] = []
    while len(chosen) < most and any(len(rows) for rows in ranked):
        for number in range(len(ranked)):
            if len(ranked[number]) and len(chosen) < most:
                row = int(ranked[number][0])
                chosen.append(row)
                ranked = [rows[_are_apart(track.times_s[rows], track.times_s[row], apart_s)] for rows in ranked]
    return np.array(sorted(chosen), np.int64)


def _best_first(probability: np.ndarray, valid: np.ndarray, span: slice) -> np.ndarray:
    """The usable rows of a span by falling probability."""
    rows = np.arange(span.start, span.stop)
    rows = rows[valid[rows]]
    best_first: np.ndarray = rows[np.argsort(-probability[rows], kind="stable")]
    return best_first


def _are_apart(times_s: np.ndarray, shown_s: float, apart_s: float) -> np.ndarray:
    """Which times are far enough from one that is shown."""
    return np.asarray(np.abs(times_s - shown_s) >= apart_s - 1e-6)
