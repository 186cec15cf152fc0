"""Training batches of texts and videos from a cache: every pair that is not known to be absent, no video twice in a batch.

    FrameSource + annotations -> PairTable -> order of an epoch -> gather of frames (packed once) -> RetrievalBatch

The frames of a video are a few vectors, so a whole corpus is packed in RAM or device memory and a batch is a gather. Order and
captions are drawn anew in every epoch, from (seed, epoch) alone. Several processes get the same batches: every text of a
batch is compared with every video of it, so halves of a batch would be another loss.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from qle.data.annotations import Annotation
from qle.data.loading.buffers import Ahead
from qle.data.loading.plan import Placement, available_ram_bytes, choose_placement
from qle.data.loading.share import Share, check_start
from qle.data.pairs import PairTable, pair_table
from qle.errors import AnnotationError
from qle.heads.retrieval import RetrievalBatch
from qle.runtime import num_tenants
from qle.tasks.retrieval.batches.config import RetrievalDataConfig
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.batches.order import epoch_order, num_batches
from qle.tasks.retrieval.batches.sentences import sentences_of
from qle.text.bank import QueryBank
from qle.text.base import Words

PACK_VIDEOS = 256
"""Read at a time while packing."""
ORDER = 1
"""Stream of random numbers of an epoch."""


class RetrievalBatches:
    """The batches of one process, epoch after epoch. Made by `retrieval_batches`."""

    def __init__(
        self,
        source: FrameSource,
        pairs: PairTable,
        sentences: Words | None,
        config: RetrievalDataConfig,
        share: Share,
        placement: Placement,
    ) -> None:
        """sentences: of `pairs.queries`, on the device."""
        self.pairs, self.placement, self.wait_s = pairs, placement, 0.0
        self._source, self._config, self._seed = source, config, share.seed
        self._device = torch.device(share.device)
        self._sentences = sentences
        self._packed = self._pack()
        self._epoch = self._first_batch = 0
        self._running: Ahead[RetrievalBatch] | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return num_batches(self.pairs, self._config.pairs_per_batch, self._config.captions_per_video)

    @property
    def num_nonfinite_rows(self) -> int:
        return self._source.num_nonfinite_rows

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """What the next iteration gives: this epoch, from this batch on."""
        check_start(epoch, first_batch, len(self))
        self._epoch, self._first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[RetrievalBatch]:
        """One iteration at a time: a new one ends the one before."""
        self._stop()
        rng = np.random.default_rng([self._seed, self._epoch, ORDER])
        order = epoch_order(self.pairs, self._config.pairs_per_batch, self._config.captions_per_video, rng)
        rest, self._first_batch = order[self._first_batch :], 0
        made: Iterator[RetrievalBatch] = map(self._make, rest)
        if self._packed is None:  # read from files: ahead of the consumer
            made = self._running = Ahead(lambda: map(self._make, rest), self._config.prefetch_batches)
        try:
            while True:
                started = time.perf_counter()
                batch = next(made, None)
                batch = None if batch is None else batch.to(self._device)
                self.wait_s += time.perf_counter() - started
                if batch is None:
                    return
                yield batch
        finally:
            if self._running is made:
                self._stop()

    def close(self) -> None:
        """Ends the thread, and gives the memory back."""
        self._stop()
        self._packed = None

    def __enter__(self) -> "RetrievalBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _make(self, chosen: np.ndarray) -> RetrievalBatch:
        """The batch of the pairs with these numbers."""
        pairs = self.pairs
        videos = pairs.video[chosen]
        queries, index = np.unique(pairs.query[chosen], return_inverse=True)
        words = None
        if self._sentences is not None:
            words = self._sentences.select(torch.from_numpy(queries).to(self._device))
        return RetrievalBatch(
            frames=self._frames(videos),
            queries=tuple(pairs.queries[query] for query in queries.tolist()),
            query_index=torch.from_numpy(index),
            words=words,
            positives=torch.from_numpy(pairs.is_true(chosen, videos)),
            videos=tuple(pairs.videos[video] for video in videos.tolist()),
        )

    def _frames(self, videos: np.ndarray) -> Tensor:
        if self._packed is None:
            return torch.from_numpy(self._source.frames([self.pairs.videos[video] for video in videos.tolist()]))
        rows = torch.from_numpy(np.searchsorted(self.pairs.described, videos)).to(self._packed.device)
        return self._packed.index_select(0, rows)

    def _pack(self) -> Tensor | None:
        """Frames of all described videos where they are to lie; None where they are read as they are needed."""
        if self.placement.name not in ("device", "ram"):
            return None
        keys = [self.pairs.videos[video] for video in self.pairs.described.tolist()]
        packed = np.empty((len(keys), self._source.num_frames, self._source.dim), self._source.dtype)
        for first in range(0, len(keys), PACK_VIDEOS):
            part = slice(first, first + PACK_VIDEOS)
            packed[part] = self._source.frames(keys[part])
        tensor = torch.from_numpy(packed)
        return tensor.to(self._device) if self.placement.name == "device" else tensor


def retrieval_batches(
    source: FrameSource,
    annotations: Mapping[str, Sequence[Annotation]],
    config: RetrievalDataConfig,
    share: Share,
    *,
    text: QueryBank | None = None,
) -> RetrievalBatches:
    """Batches of pairs of the annotated videos. annotations: by the key of their video (`FrameSource.match`).

    text: a frozen encoder, then sentences come with the batches.
    """
    device = torch.device(share.device)
    pairs = pair_table(annotations)
    if len(pairs.described) < 2:
        raise AnnotationError(
            f"only {pairs.videos[pairs.described[0]]!r} has a query that happens in it: a video is told from others, and there "
            "is no other\ngive annotations of more videos"
        )
    sentences = None if text is None else sentences_of(text, pairs.queries, device)
    placement = _placement(source, pairs, config, device, share.num_processes)
    return RetrievalBatches(source, pairs, sentences, config, share, placement)


def _placement(
    source: FrameSource, pairs: PairTable, config: RetrievalDataConfig, device: torch.device, num_processes: int
) -> Placement:
    return choose_placement(
        config.placement,
        len(pairs.described) * source.num_frames * source.dim * source.dtype.itemsize,
        ram_bytes=available_ram_bytes(num_tenants()),
        device_bytes=torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None,
        num_processes=num_processes,
    )
