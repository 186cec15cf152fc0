"""On which rows is the thing of a query to be seen, and where? From masks or boxes; numpy only.

Annotation + times of rows + its masks -> rows and one mask each. A row counts when the query happens there and the mask that is
nearest in time shows the thing: what is annotated at 1 frame a second says nothing about the time between. Several boxes at one
time (two graspers) are one thing in two places. Masks are drawn for the wanted rows only: those of an hour are gigabytes.
"""

from dataclasses import dataclass

import numpy as np

from qle.data.annotations import Annotation
from qle.data.masks import MaskTrack
from qle.data.rows import RowChoice
from qle.explain.pointing import box_mask

LEAST_REACH_S = 0.1
"""A mask always speaks for rows that are nearer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """Rows of one video on which the thing of one annotation is seen."""

    video: str
    """Key in the cache."""
    annotation: Annotation
    rows: np.ndarray
    """Numbers among the chosen rows of the video."""
    masks: tuple[np.ndarray, ...]
    """(height, width) bool for each row, never empty."""


def visible(
    video: str, annotation: Annotation, choice: RowChoice, track: MaskTrack | None, *, most: int | None = None
) -> Visible:
    """`track`: the annotation's masks; without them its boxes are taken. `most`: so many rows, evenly over all of them."""
    times_s = np.unique([box.time_s for box in annotation.boxes]) if track is None else np.asarray(track.times_s)
    rows = np.zeros(0, np.int64)
    if len(times_s):
        shows = np.ones(len(times_s), bool) if track is None else np.asarray(track.masks.any(axis=(1, 2)))
        nearest = _nearest(times_s, choice.times_s)
        reach_s = max(float(np.median(np.diff(times_s))) / 2 if len(times_s) > 1 else 0.0, LEAST_REACH_S)
        is_near = np.abs(times_s[nearest] - choice.times_s) <= reach_s + 1e-6
        rows = np.flatnonzero(choice.valid & is_near & shows[nearest] & _happens(annotation, choice.times_s))
        if most is not None and len(rows) > most:
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))]
        nearest = nearest[rows]
    masks = [
        _drawn(annotation, times_s[number]) if track is None else np.asarray(track.masks[number], bool)
        for number in (nearest if len(rows) else ())
    ]
    return Visible(video=video, annotation=annotation, rows=rows, masks=tuple(masks))


def _nearest(times_s: np.ndarray, asked_s: np.ndarray) -> np.ndarray:
    """For each time asked the place of the nearest among increasing times, the earlier of two that are as near."""
    after = np.searchsorted(times_s, asked_s).clip(0, len(times_s) - 1)
    before = (after - 1).clip(0)
    return np.where(asked_s - times_s[before] <= times_s[after] - asked_s, before, after)


def _happens(annotation: Annotation, times_s: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(times_s), bool)
    for start_s, end_s in annotation.windows:
        inside |= (times_s >= start_s) & (times_s <= end_s)
    return inside


def _drawn(annotation: Annotation, time_s: float) -> np.ndarray:
    """Every box of that time."""
    union: np.ndarray = np.any([box_mask(box) for box in annotation.boxes if box.time_s == time_s], axis=0)
    return union
