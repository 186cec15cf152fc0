"""Relevance maps as numbers: where their cells lie in the picture, on what scale they are shown, how alike two of them are.

A map is (rows, cols) float32, signed and unnormalised: its mean is the raw logit of the row, so a cell says by how much it
pushes the row towards the query (above 0) or away from it (below 0). Nothing here shifts or stretches a map by itself: a row
where nothing is found must look like one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SCALE_QUANTILE = 0.99
"""|value| that gets the full colour: of all cells of all rows of a query, so that one stray cell does not fade the rest."""
SMALLEST_SCALE = 1e-6
"""Maps of zeros stay transparent instead of dividing by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The part of the picture that the grid covers, as fractions of it: 0, 0 is the upper left corner, 1, 1 the lower right.

    Whole where the picture was squashed to the model's input; smaller where a middle was cut; beyond 0..1 where black was
    added around it.
    """

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0


WHOLE = Region()


def robust_scale(maps: Sequence[np.ndarray] | np.ndarray) -> float:
    """One scale for all maps of a query: the SCALE_QUANTILE of |value| over every finite cell."""
    cells = (
        np.concatenate([np.asarray(relevance, np.float32).ravel() for relevance in maps]) if len(maps) else np.zeros(0)
    )
    cells = np.abs(cells[np.isfinite(cells)])
    return max(float(np.quantile(cells, SCALE_QUANTILE)), SMALLEST_SCALE) if cells.size else 1.0


def upsample(relevance: np.ndarray, height: int, width: int, region: Region = WHOLE) -> np.ndarray:
    """(height, width) float32: between the centres of cells bilinear, constant from the outer centres to the border of the
    region, 0 outside of it.

    Bilinear and not cubic: no value that is not between those of its four cells, so no sign and no peak that the map lacks.
    """
    rows, cols = relevance.shape
    y, inside_y = _cells(height, rows, region.top, region.bottom)
    x, inside_x = _cells(width, cols, region.left, region.right)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, cols - 1)
    down, across = (y - top).astype(np.float32)[:, None], (x - left).astype(np.float32)[None, :]
    values = np.nan_to_num(np.asarray(relevance, np.float32))
    upper = values[top[:, None], left] * (1 - across) + values[top[:, None], right] * across
    lower = values[bottom[:, None], left] * (1 - across) + values[bottom[:, None], right] * across
    placed: np.ndarray = (upper * (1 - down) + lower * down) * (inside_y[:, None] & inside_x[None, :])
    return placed


def cell_of_pixels(height: int, width: int, grid: tuple[int, int], region: Region = WHOLE) -> np.ndarray:
    """(height, width) int: flat number of the cell that each pixel belongs to, -1 outside of the region."""
    rows, cols = grid
    y, inside_y = _share(height, region.top, region.bottom)
    x, inside_x = _share(width, region.left, region.right)
    row = np.clip((y * rows).astype(int), 0, rows - 1)
    col = np.clip((x * cols).astype(int), 0, cols - 1)
    cells: np.ndarray = np.where(inside_y[:, None] & inside_x[None, :], row[:, None] * cols + col[None, :], -1)
    return cells


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation of two maps, ties at their mean rank; NaN where one of them is constant."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / length) if length > 0 else float("nan")


def _share(size: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """How far into the region the centre of each pixel lies (0..1), and whether it lies there at all."""
    share = ((np.arange(size) + 0.5) / size - low) / (high - low)
    return share, (share >= 0) & (share <= 1)


def _cells(size: int, num_cells: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Position of each pixel counted in centres of cells, held inside the outer centres."""
    share, inside = _share(size, low, high)
    return np.clip(share * num_cells - 0.5, 0, num_cells - 1), inside


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(np.asarray(values).ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks
