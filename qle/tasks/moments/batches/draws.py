"""Random numbers of an epoch, a row for every item: what is drawn depends on (seed, epoch, item) and nothing else. No torch.

Whichever process makes a batch, from whichever placement, after a resume or not: the item gets the same numbers. Numbers in
[0, 1) become choices by `pick`, for a whole batch at a time, since a generator for each item costs more than its batch.
"""

import numpy as np

ITEMS, ORDER, GROUPS, MOMENTS = 0, 1, 2, 3
"""Streams of random numbers of an epoch."""
ANYWHERE, MOMENT, POSITION, NEGATIVE, PAIRS = 0, 1, 2, 3, 4
"""Columns of an item's row; the two ends of each pair follow from PAIRS on."""


def generator(seed: int, epoch: int, stream: int, *more: int) -> np.random.Generator:
    """The random numbers for one purpose of one epoch."""
    return np.random.default_rng((seed, epoch, stream, *more))


def item_draws(seed: int, epoch: int, num_items: int, num_pairs: int) -> np.ndarray:
    """(items, columns) float64 in [0, 1)."""
    return generator(seed, epoch, ITEMS).random((num_items, PAIRS + 2 * num_pairs))


def pick(allowed: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every number of `draw`, (rows, ...), one of the True places of its row of `allowed`, (rows, places), each as likely:
    int64 like `draw`, and (rows,) False where a row has none (then 0 stands there)."""
    row, column = allowed.nonzero()
    count = np.bincount(row, minlength=len(allowed))
    if not len(column):
        return np.zeros(draw.shape, dtype=np.int64), count > 0
    across = (slice(None), *[None] * (draw.ndim - 1))
    wanted = np.minimum((draw * count[across]).astype(np.int64), count[across] - 1) + (np.cumsum(count) - count)[across]
    return column[np.minimum(wanted, len(column) - 1)] * (count > 0)[across], count > 0


def pick_number(count: int, draw: float) -> int:
    """One of 0 .. count - 1."""
    return min(int(draw * count), count - 1)
