"""On which rows is the thing of a query to be seen, and where? From masks or boxes; numpy only.

Annotation + times of rows + its masks -> rows and one mask each. A row counts when the query happens there and the mask that is
nearest in time shows the thing: what is annotated at 1 frame a second says nothing about the time between.
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

    def thinned(self, most: int) -> "Visible":
        """At most that many of the rows, evenly over all of them."""
        if len(self.rows) <= most:
            return self
        keep = np.unique(np.linspace(0, len(self.rows) - 1, most).round().astype(int))
        masks = tuple(self.masks[place] for place in keep)
        return Visible(video=self.video, annotation=self.annotation, rows=self.rows[keep], masks=masks)


def visible(video: str, annotation: Annotation, choice: RowChoice, track: MaskTrack | None) -> Visible:
    """`track`: the annotation's masks; without them its boxes are taken."""
    times_s = np.asarray([box.time_s for box in annotation.boxes]) if track is None else np.asarray(track.times_s)
    rows, masks = [], []
    if len(times_s):
        nearest = np.abs(times_s[:, None] - choice.times_s).argmin(0)
        reach_s = max(
            float(np.median(np.diff(np.unique(times_s)))) / 2 if len(np.unique(times_s)) > 1 else 0, LEAST_REACH_S
        )
        for row in np.flatnonzero(choice.valid):
            time_s, place = choice.times_s[row], nearest[row]
            is_near = abs(times_s[place] - time_s) <= reach_s + 1e-6
            if not (is_near and any(start <= time_s <= end for start, end in annotation.windows)):
                continue
            mask = box_mask(annotation.boxes[place]) if track is None else np.asarray(track.masks[place], bool)
            if mask.any():
                rows.append(row)
                masks.append(mask)
    return Visible(video=video, annotation=annotation, rows=np.asarray(rows, np.int64), masks=tuple(masks))
