"""Which pairs an epoch of retrieval training sees, in which batches: a pure function of (pairs, sizes, random numbers). No torch.

rounds over all videos, each in random order -> batches without a video twice -> for each video another caption every time
"""

import numpy as np

from qle.data.pairs import PairTable


def num_batches(pairs: PairTable, size: int, captions_per_video: int) -> int:
    """Batches of an epoch; all are full."""
    return -(-len(pairs.described) * captions_per_video // min(size, len(pairs.described)))


def epoch_order(pairs: PairTable, size: int, captions_per_video: int, rng: np.random.Generator) -> np.ndarray:
    """(batches, pairs of a batch) int64: numbers of pairs. The last batch is filled up with more videos."""
    videos = pairs.described
    size = min(size, len(videos))
    shape = num_batches(pairs, size, captions_per_video), size
    order = np.empty(0, dtype=np.int64)
    while len(order) < shape[0] * size:
        order = np.concatenate([order, _round(videos, order[len(order) - len(order) % size :], size, rng)])
    order = order[: shape[0] * size]
    return _captions(pairs, order, rng).reshape(shape)


def _round(videos: np.ndarray, begun: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """All videos once, so that those of the batch that has begun do not come again in it."""
    shuffled = rng.permutation(videos)
    if not len(begun):
        return shuffled
    is_in = np.isin(shuffled, begun)
    others, seen = shuffled[~is_in], shuffled[is_in]
    room = size - len(begun)
    # The seen ones go among the rest at random, not all to its beginning.
    return np.concatenate([others[:room], rng.permutation(np.concatenate([others[room:], seen]))])


def _captions(pairs: PairTable, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pair for each video of the order: its captions in random order, round and round."""
    shuffled = np.lexsort([rng.random(len(pairs)), pairs.video])
    first = np.searchsorted(pairs.video[shuffled], order, side="left")
    count = np.searchsorted(pairs.video[shuffled], order, side="right") - first
    return np.asarray(shuffled[first + _occurrence(order) % count])


def _occurrence(order: np.ndarray) -> np.ndarray:
    """How often the same number has stood before each place."""
    by_number = np.argsort(order, kind="stable")
    ordered = order[by_number]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    occurrence = np.empty(len(order), dtype=np.int64)
    occurrence[by_number] = rank
    return occurrence
