"""Does a map point at the thing? Against masks or boxes, with what a guess would reach beside every number.

A map of one row and a mask of the thing in the picture come in; shares leave. A guess is either the centre of the picture, where
endoscopic things often are, or any place at random, which succeeds as often as the thing is large.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from qle.data.annotations import FrameBox
from qle.explain.maps import WHOLE, Region, cell_of_pixels, upsample

TOLERANCE_PX = 15
"""Pixels of the video's own picture: what the original pointing game (Zhang et al., 2016) forgives."""
BOX_SHAPE = (240, 320)
"""Pixels on which boxes, which are fractions of the picture, are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """One map against one mask. All in 0..1, higher is better."""

    hit: float
    """1 where the middle of the highest cell lies on the thing; on black that was added around the picture is no hit."""
    hit_centre: float
    hit_random: float
    """The share of the picture that the thing covers."""
    refined: float
    """1 where the peak that is refined from its neighbours (`refined_peak`) lies on the thing; centre and random as for `hit`."""
    near: float
    """1 where it lies on the thing or within TOLERANCE_PX of it: the original pointing game."""
    near_centre: float
    near_random: float
    cell: float
    """1 where the highest cell touches the thing: a thing that is smaller than a cell seldom holds its middle."""
    cell_centre: float
    cell_random: float
    energy: float
    """Share of all positive relevance that lies on the thing; 0 where nothing is positive."""
    rank: float
    """Share of the k highest pixels that lie on the thing, k: how many it has."""
    pixel_auroc: float
    """Probability that a pixel of the thing is higher than one beside it; a guess has 0.5."""


def point(
    relevance: np.ndarray, target: np.ndarray, region: Region = WHOLE, frame: tuple[int, int] | None = None
) -> Pointing:
    """(rows, cols) map against a (height, width) bool mask, which has at least one pixel. `frame` is the size of the video's
    picture, width first, in whose pixels the tolerance is meant; where it is not known, that of the mask."""
    height, width = target.shape
    if not target.any():
        raise ValueError("pointing needs a mask with at least one pixel")
    heat = upsample(relevance, height, width, region)
    cells = cell_of_pixels(height, width, relevance.shape, region)
    touched = np.zeros(relevance.size, bool)
    touched[cells[target & (cells >= 0)]] = True
    best = int(np.argmax(np.nan_to_num(relevance, nan=-np.inf)))
    centre = height // 2, width // 2
    area = float(target.mean())
    around = _around(target, frame or (width, height))
    positive = np.clip(heat, 0, None)
    total = float(positive.sum())
    return Pointing(
        hit=_is_hit(best, relevance.shape, target, region),
        hit_centre=float(target[centre]),
        hit_random=area,
        refined=_lies_on(refined_peak(relevance), target, region),
        near=_is_hit(best, relevance.shape, around, region),
        near_centre=float(around[centre]),
        near_random=float(around.mean()),
        cell=float(touched[best]),
        cell_centre=float(cells[centre] >= 0 and touched[cells[centre]]),
        cell_random=float(touched.mean()),
        energy=float(positive[target].sum()) / total if total > 0 else 0.0,
        rank=_share_of_highest(heat, target),
        pixel_auroc=_auroc(heat, target),
    )


def box_mask(box: FrameBox) -> np.ndarray:
    """BOX_SHAPE bool: pixels whose middle lies in the box, and at least the one that holds its own middle."""
    height, width = BOX_SHAPE
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    mask: np.ndarray = ((y >= box.top) & (y <= box.bottom))[:, None] & ((x >= box.left) & (x <= box.right))[None, :]
    row = int(np.clip((box.top + box.bottom) / 2 * height, 0, height - 1))
    col = int(np.clip((box.left + box.right) / 2 * width, 0, width - 1))
    mask[row, col] = True
    return mask


def _around(target: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """The thing and what is within TOLERANCE_PX of it."""
    pixel = frame[1] / target.shape[0], frame[0] / target.shape[1]
    near: np.ndarray = distance_transform_edt(~target, sampling=pixel) <= TOLERANCE_PX
    return near


def _is_hit(cell: int, grid: tuple[int, ...], target: np.ndarray, region: Region) -> float:
    """The middle of the cell, and nothing beside the picture."""
    row, col = divmod(cell, grid[1])
    return _lies_on(((row + 0.5) / grid[0], (col + 0.5) / grid[1]), target, region)


def refined_peak(relevance: np.ndarray) -> tuple[float, float]:
    """y, x in 0..1 of the grid: the centre of mass of the positive relevance in the highest cell and the eight around it. A
    thing that lies on the border of two cells lights both, and the middle of one of them may miss it. Where no cell is above
    0 the middle of the highest."""
    rows, cols = relevance.shape
    heat = np.nan_to_num(np.asarray(relevance, np.float64), nan=-np.inf)
    row, col = divmod(int(np.argmax(heat)), cols)
    near = np.s_[max(row - 1, 0) : min(row + 2, rows), max(col - 1, 0) : min(col + 2, cols)]
    weight = np.clip(heat[near], 0, None)
    if not weight.sum() > 0:
        return (row + 0.5) / rows, (col + 0.5) / cols
    y, x = np.mgrid[near]
    return (float((y * weight).sum() / weight.sum()) + 0.5) / rows, (
        float((x * weight).sum() / weight.sum()) + 0.5
    ) / cols


def _lies_on(peak: tuple[float, float], target: np.ndarray, region: Region) -> float:
    """A place in 0..1 of the grid, in the picture."""
    y = region.top + peak[0] * (region.bottom - region.top)
    x = region.left + peak[1] * (region.right - region.left)
    if not (0 <= y < 1 and 0 <= x < 1):
        return 0.0
    return float(target[int(y * target.shape[0]), int(x * target.shape[1])])


def _share_of_highest(heat: np.ndarray, target: np.ndarray) -> float:
    """Pixels at one height share what is left, so that a flat map gets what a guess gets."""
    count = int(target.sum())
    limit = np.partition(heat.ravel(), -count)[-count]
    above, level = heat > limit, heat == limit
    left = (count - int(above.sum())) * float(target[level].mean())
    return (float(target[above].sum()) + left) / count


def _auroc(heat: np.ndarray, target: np.ndarray) -> float:
    """0.5 where the mask is the whole picture: there is nothing to be told apart."""
    inside = int(target.sum())
    outside = target.size - inside
    if not outside:
        return 0.5
    _, inverse, counts = np.unique(heat.ravel(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[target.ravel()].sum() - inside * (inside + 1) / 2) / (inside * outside))
