"""Which items of an epoch stand in one batch, and to how many clips they are padded: a pure function of (seed, epoch). No torch.

    lengths -> a few bucket lengths -> shuffled items, bucket by bucket -> batches -> shuffled -> the part of this process
    recordings (by_source) -> packed into batches of a fixed plan, others in each epoch

Every item stands in one batch of an epoch, there are as many batches in every epoch and in every process, and processes
take parts of the same global batches: together they see what one alone would have seen. Only where a batch has fewer items
than there are processes, some are seen twice.
"""

from collections import defaultdict
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from qle.errors import ConfigError
from qle.tasks.moments.batches import draws
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.items import Corpus

MAX_BUCKETS = 8
"""Lengths to which batches are padded: few, so that shapes come again."""
OPEN_BATCHES = 32
"""Batches in which a recording is still tried, when a plan is made."""


class ItemBatch(NamedTuple):
    """Items of one process in one batch."""

    items: np.ndarray
    """(items,) int64"""
    length: int
    """Clips to which the batch is padded, the same in all processes."""


class ItemPlan:
    """Batches of any epoch."""

    def __init__(self, corpus: Corpus, config: MomentDataConfig, seed: int, shard: tuple[int, int] = (0, 1)) -> None:
        """shard: which process of how many asks."""
        self._config, self._seed, self._shard = config, seed, shard
        if config.items_per_batch % shard[1]:
            raise ConfigError(
                f"data.items_per_batch = {config.items_per_batch} cannot be divided among {shard[1]} processes\n"
                f"it counts the items of all of them: choose a multiple of {shard[1]}"
            )
        self._lengths = np.minimum(corpus.num_clips[corpus.video], config.window_clips)
        self.bucket_lengths = bucket_lengths(self._lengths, MAX_BUCKETS)
        self._bucket = np.searchsorted(self.bucket_lengths, self._lengths)
        self._groups = _groups(corpus) if config.by_source else []
        self._plan = self._group_plan() if config.by_source else []

    @property
    def num_batches(self) -> int:
        if self._config.by_source:
            return len(self._plan) // self._shard[1]
        size = self._config.items_per_batch
        full = np.bincount(self._bucket) // size
        return int(full.sum() - (-(len(self._bucket) - full.sum() * size) // size))

    def batches(self, epoch: int) -> list[ItemBatch]:
        """This process's part of each batch."""
        index, count = self._shard
        if self._config.by_source:
            made = self._by_source(epoch)
            batches = [made[start : start + count] for start in range(0, len(made), count)]
        else:
            batches = [np.array_split(batch, count) for batch in self._shuffled(epoch)]
        buckets = [max(int(self._bucket[part].max()) for part in parts) for parts in batches]
        return [
            ItemBatch(parts[index], int(self.bucket_lengths[bucket]))
            for parts, bucket in zip(batches, buckets, strict=True)
        ]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        """Full batches of each bucket, then what is left over of all of them, in random order."""
        rng, size = draws.generator(self._seed, epoch, draws.ORDER), self._config.items_per_batch
        order = rng.permutation(len(self._bucket))
        piles = [order[self._bucket[order] == bucket] for bucket in range(len(self.bucket_lengths))]
        full = [len(pile) // size * size for pile in piles]
        batches = [
            pile[start : start + size] for pile, end in zip(piles, full, strict=True) for start in range(0, end, size)
        ]
        rest = np.concatenate([pile[end:] for pile, end in zip(piles, full, strict=True)])
        batches += [rest[start : start + size] for start in range(0, len(rest), size)]
        batches = [self._enough(batch, order) for batch in batches]
        return [batches[number] for number in rng.permutation(len(batches)).tolist()]

    def _enough(self, batch: np.ndarray, order: np.ndarray) -> np.ndarray:
        """At least one item for every process."""
        missing = self._shard[1] - len(batch)
        return batch if missing <= 0 else np.concatenate([batch, np.resize(order, missing)])

    def _group_plan(self) -> list[list[int]]:
        """Sizes of the recordings in each batch of one process. They stay, so that every epoch has as many batches; which
        recordings of a size stand where is drawn."""
        most = self._config.items_per_batch // self._shard[1]
        sizes = np.minimum([len(group) for group in self._groups], self._config.queries_per_source)
        if sizes.max() > most:
            raise ConfigError(
                f"data.queries_per_source = {self._config.queries_per_source}: a batch of one process holds {most} items "
                f"(data.items_per_batch = {self._config.items_per_batch}, {self._shard[1]} processes), and a recording has "
                f"{sizes.max()} queries\nraise data.items_per_batch, or lower data.queries_per_source"
            )
        plan: list[list[int]] = []
        for size in np.random.default_rng(self._seed).permutation(sizes).tolist():
            held = next((batch for batch in plan[-OPEN_BATCHES:] if sum(batch) + size <= most), None)
            if held is None:
                plan.append([size])
            else:
                held.append(size)
        while len(plan) % self._shard[1] and max(map(len, plan)) > 1:
            longest = max(plan, key=len)
            plan.append([longest.pop()])
        return plan + list(islice(cycle(plan), -len(plan) % self._shard[1]))

    def _by_source(self, epoch: int) -> list[np.ndarray]:
        """Batches of single processes."""
        rng = draws.generator(self._seed, epoch, draws.GROUPS)
        of_size: dict[int, list[np.ndarray]] = defaultdict(list)
        for number in rng.permutation(len(self._groups)).tolist():
            group, most = self._groups[number], self._config.queries_per_source
            if len(group) > most:
                group = group[np.sort(rng.choice(len(group), most, replace=False))]
            of_size[len(group)].append(group)
        asked: dict[int, int] = defaultdict(int)
        batches = []
        for sizes in self._plan:
            groups = []
            for size in sizes:
                groups.append(of_size[size][asked[size] % len(of_size[size])])
                asked[size] += 1
            batches.append(np.concatenate(groups))
        return [batches[number] for number in rng.permutation(len(batches)).tolist()]


def bucket_lengths(lengths: np.ndarray, most: int) -> np.ndarray:
    """(buckets,) int64, ascending, the last the longest: the `most` lengths to which padding all costs the fewest clips."""
    values, counts = np.unique(lengths, return_counts=True)
    items = np.concatenate([[0], np.cumsum(counts)])
    clips = np.concatenate([[0], np.cumsum(counts * values)])
    # cost[i, j]: padding of the lengths i .. j - 1 to the last of them.
    cost = (items[None, 1:] - items[:-1, None]) * values[None, :] - (clips[None, 1:] - clips[:-1, None])
    cost = np.where(np.tri(len(values), dtype=bool).T, cost, np.inf)
    best, begins = cost[0], []
    for _ in range(min(most, len(values)) - 1):
        # One bucket more: the last begins at i, and what comes before i is padded as well as it can be.
        total = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        begins.append(np.argmin(total, axis=0))
        best = total.min(axis=0)
    lasts = [len(values) - 1]
    for begin in reversed(begins):
        lasts.append(int(begin[lasts[-1]]) - 1)
    longest: np.ndarray = values[lasts[::-1]]
    return longest


def _groups(corpus: Corpus) -> list[np.ndarray]:
    """Items of each recording, in the order of their videos and of when they happen."""
    begins = np.array([annotation.windows[0][0] if annotation.windows else 0.0 for annotation in corpus.annotations])
    order = np.lexsort([begins, corpus.video, corpus.source])
    bounds = np.flatnonzero(np.diff(corpus.source[order])) + 1
    return np.split(order, bounds)
