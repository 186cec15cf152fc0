"""Training batches of moment heads: items gathered from the pack, their targets drawn anew in every epoch.

    StreamSet + annotations -> Corpus -> ItemPlan -> Windows -> clips, words, targets, negatives -> MomentBatch

`moment_batches` makes the reader of one process. Everything random is a function of (seed, epoch, item), so the same batches
come again after a resume and from any placement, and processes together see the items of one. Features lie packed on the
device or in memory and a batch costs a millisecond, so no worker processes are needed; where they come from the disk, a
thread makes the next batches while one is worked on. `wait_s` is what the consumer had to wait in any case.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from qle.data.annotations import Annotation
from qle.data.loading.buffers import Ahead
from qle.data.loading.plan import Placement
from qle.data.loading.share import Share, check_start
from qle.data.streams.features import StreamSet
from qle.errors import AnnotationError
from qle.heads.moments import MomentBatch, MomentTargets
from qle.tasks.moments.batches import draws
from qle.tasks.moments.batches.batching import ItemBatch, ItemPlan
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.items import Corpus, is_item, open_corpus
from qle.tasks.moments.batches.negatives import Negatives
from qle.tasks.moments.batches.pack import open_source, pack_placement
from qle.tasks.moments.batches.reading import ClipReader
from qle.tasks.moments.batches.targets import ItemLabels, TargetArrays
from qle.tasks.moments.batches.words import PackedWords, packed_words
from qle.text.bank import QueryBank

__all__ = ["MomentBatches", "moment_batches"]

log = logging.getLogger(__name__)


class MomentBatches:
    """The batches of one process, epoch after epoch. Made by `moment_batches`."""

    def __init__(
        self,
        corpus: Corpus,
        reader: ClipReader,
        words: PackedWords | None,
        config: MomentDataConfig,
        share: Share,
        placement: Placement,
    ) -> None:
        self.placement = placement
        """Where the features lie, and why."""
        self.wait_s = 0.0
        """Seconds that the consumer has waited for batches so far."""
        self._corpus, self._reader, self._words, self._config = corpus, reader, words, config
        self._plan = ItemPlan(corpus, config, share.seed, share.shard)
        self._labels = ItemLabels(corpus, config, share.seed)
        self._device, self._seed = torch.device(share.device), share.seed
        self._source = open_source(placement, reader, self._device)
        self._negatives = Negatives(corpus) if config.has_negatives else None
        self._epoch = self._first_batch = 0
        self._has_told_blind = False
        self._running: Ahead[MomentBatch] | None = None
        self._num_iterations = 0

    def __len__(self) -> int:
        """Batches of an epoch, the same in every process and every epoch."""
        return self._plan.num_batches

    @property
    def num_nonfinite_rows(self) -> int:
        """Valid rows that were met so far and hold NaN or inf; their clips are masked."""
        return self._reader.num_nonfinite

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """What the next iteration gives: this epoch, from this batch on (a resume makes nothing that was seen before)."""
        check_start(epoch, first_batch, len(self))
        self._epoch, self._first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[MomentBatch]:
        """Batches on the device, with words where the text encoder is frozen. One iteration at a time: a new one ends the one
        before. A batch's memory is used again once nothing looks into it."""
        self._stop()
        batches = self._plan.batches(self._epoch)[self._first_batch :]
        epoch, self._first_batch = self._epoch, 0
        made = self._ahead(batches, epoch)
        self._num_iterations = number = self._num_iterations + 1
        try:
            while number == self._num_iterations:
                started = time.perf_counter()
                batch = next(made, None)
                if batch is not None:
                    batch = batch.to(self._device)
                self.wait_s += time.perf_counter() - started
                if batch is None:
                    return
                yield batch
                del batch  # its memory is free once the consumer lets go of it
        finally:
            if self._running is made:
                self._stop()

    def close(self) -> None:
        """Ends the thread and gives the memory back."""
        self._stop()
        self._source.close()

    def __enter__(self) -> "MomentBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ahead(self, batches: Sequence[ItemBatch], epoch: int) -> Iterator[MomentBatch]:
        """By a thread where the disk may have to be waited for."""
        if self.placement.name in ("device", "ram"):
            return self._make(batches, epoch)
        self._running = Ahead(lambda: self._make(batches, epoch), self._config.prefetch_batches)
        return self._running

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _make(self, batches: Sequence[ItemBatch], epoch: int) -> Iterator[MomentBatch]:
        chances = draws.item_draws(self._seed, epoch, self._corpus.num_items, self._config.num_pairs)
        for batch in batches:
            yield self._batch(batch, chances[batch.items], epoch)

    def _batch(self, batch: ItemBatch, draw: np.ndarray, epoch: int) -> MomentBatch:
        corpus, items = self._corpus, batch.items
        windows = self._labels.windows(items, draw)
        videos = corpus.video[items]
        clips, mask = self._source.gather(videos, windows, batch.length)
        targets = self._labels.targets(windows, mask, draw, epoch)
        mask = self._never_blind(mask, items)
        queries: dict[int, int] = {}
        query_index = [queries.setdefault(query, len(queries)) for query in corpus.query[items].tolist()]
        negative, negative_mask = None, None
        if self._negatives is not None:
            drawn = self._negatives.draw(items, draw[:, draws.NEGATIVE])
            negative, negative_mask = map(torch.from_numpy, drawn)
        return MomentBatch(
            clips=clips,
            clip_mask=torch.from_numpy(mask),
            queries=tuple(corpus.queries[query] for query in queries),
            query_index=torch.tensor(query_index),
            sources=torch.from_numpy(corpus.source[items]),
            negative=negative,
            negative_mask=negative_mask,
            words=None if self._words is None else self._words.of(np.array(list(queries))),
            targets=_as_tensors(targets),
            videos=tuple(corpus.keys[video] for video in videos.tolist()),
            first_clips=tuple(windows.first.tolist()),
        )

    def _never_blind(self, mask: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Attention over nothing is NaN: where a window has no clip that may be used, one clip of zeros stands for it. It has
        no moment then."""
        blind = ~mask.any(axis=1)
        if blind.any():
            if not self._has_told_blind:
                video = self._corpus.keys[int(self._corpus.video[items[np.argmax(blind)]])]
                log.warning(
                    "video %s: a window has no clip of finite, valid features; such windows teach nothing", video
                )
                self._has_told_blind = True
            mask[blind, 0] = True
        return mask


def moment_batches(
    streams: StreamSet,
    annotations: Mapping[str, Sequence[Annotation]],
    config: MomentDataConfig,
    share: Share,
    *,
    text: QueryBank | None,
) -> MomentBatches:
    """Batches of the annotated videos. annotations: by the key of their video (`StreamSet.match`).

    text: of a frozen encoder, whose words then come with the batches.
    """
    device = torch.device(share.device)
    keys = [key for key, part in annotations.items() if any(map(is_item, part))]
    if not keys:
        raise AnnotationError(
            "no annotation says when its query happens, or how raters found it: nothing can be learned"
        )
    reader = ClipReader(streams, keys)
    corpus = open_corpus(annotations, dict(zip(keys, reader.edges_s, strict=True)), config.source_pattern)
    placement = pack_placement(config.placement, reader.num_bytes, device, share.num_processes)
    log.info("features: %s (%s)", placement.name, placement.reason)
    words = None if text is None else packed_words(text, corpus.queries, device, share.num_processes)
    return MomentBatches(corpus, reader, words, config, share, placement)


def _as_tensors(targets: TargetArrays) -> MomentTargets:
    return MomentTargets(
        spans=torch.from_numpy(targets.spans),
        counts=targets.counts,
        relevant=torch.from_numpy(targets.relevant),
        saliency=torch.from_numpy(targets.saliency),
        better=torch.from_numpy(targets.better),
        worse=torch.from_numpy(targets.worse),
        pair_mask=torch.from_numpy(targets.pair_mask),
    )
