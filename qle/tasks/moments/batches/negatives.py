"""For each item of a batch another one whose query does not happen in its video. No torch.

That the query belongs to another item does not say that it does not happen here: two cuts of one recording show the same, and
the same thing is asked in other words. So the other item must be of another recording and of another concept, and its concept
must not be one that happens, or that nobody was asked about, in this item's recording: in this cut of it or in another.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from qle.data.annotations import Annotation
from qle.tasks.moments.batches.draws import pick
from qle.tasks.moments.batches.items import Corpus, is_item, open_corpus

ITEMS_AT_ONCE = 512
"""Items that are compared with each other, drawn at random, when any negative is looked for."""


class Negatives:
    """Draws them."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        # Most concepts are asked of one recording only, and the rule about recordings covers them.
        source_of = np.zeros(len(corpus.keys), dtype=np.int64)
        source_of[corpus.video] = corpus.source
        video, concept = np.divmod(corpus.happening, corpus.num_concepts)
        sources = np.concatenate([corpus.source, source_of[video]])
        pairs = np.unique(np.stack([np.concatenate([corpus.concept, concept]), sources]), axis=1)
        self._is_shared = np.bincount(pairs[0], minlength=corpus.num_concepts) > 1
        self._happening = np.unique(source_of[video] * corpus.num_concepts + concept)

    def draw(self, items: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items,) int64 places in the batch, an item itself where there is none; and (items,) bool."""
        source, concept = self._corpus.source[items], self._corpus.concept[items]
        allowed = (source[:, None] != source) & (concept[:, None] != concept)
        shared = np.flatnonzero(self._is_shared[concept])
        if len(shared):
            asked = source[:, None] * self._corpus.num_concepts + concept[shared]
            allowed[:, shared] &= ~_contains(self._happening, asked)
        item, is_there = pick(allowed, draw)
        return np.where(is_there, item, np.arange(len(items))), is_there


def any_negative(annotations: Mapping[str, Sequence[Annotation]], source_pattern: str) -> bool:
    """Whether some item of these videos, by key, can ever get the query of another one."""
    keys = [key for key, part in annotations.items() if any(map(is_item, part))]
    corpus = open_corpus(annotations, dict.fromkeys(keys, np.zeros(1)), source_pattern)
    rng = np.random.default_rng(0)
    negatives, order = Negatives(corpus), rng.permutation(corpus.num_items)
    parts = [order[first : first + ITEMS_AT_ONCE] for first in range(0, len(order), ITEMS_AT_ONCE)]
    return any(bool(negatives.draw(part, rng.random(len(part)))[1].any()) for part in parts)


def _contains(numbers: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which of `asked` stand among sorted numbers."""
    index = np.minimum(np.searchsorted(numbers, asked), len(numbers) - 1)
    return numbers[index] == asked if len(numbers) else np.zeros(asked.shape, dtype=bool)
