"""Stage 1: which videos is a query about? A shortlist by mean frames, then the exact similarity of its videos.

    query -> unit vector x coarse vectors of all videos -> the best `shortlist` -> frames -> head.similarity -> RankedVideos

With a shortlist as long as the corpus nothing is rough: then it is the order in which `qle eval --protocol retrieval` puts them.
Videos that are exactly as similar are ordered by key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from qle.cache.handles import remove
from qle.cache.reader import open_cache
from qle.errors import CacheMissingError, CheckpointError
from qle.heads import task_of
from qle.heads.retrieval import RetrievalHead
from qle.runs.load import LoadedRun, load_run
from qle.runs.record import check_space, read_run
from qle.search.coarse import CoarseVectors, open_coarse
from qle.search.pooled import RECORD_FILE, DamagedIndexError, PooledIndex, folder_of
from qle.search.pooled_update import OpenedIndex, open_pooled
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.batches.sentences import sentences_of
from qle.tasks.scoring import scoring
from qle.text.base import Words
from qle.types import OnProgress

VIDEOS_PER_PASS = 64
"""Whose frames are in memory at a time."""
QUERIES_PER_PASS = 64
"""That are compared with the mean frames of all videos at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedVideos:
    """The videos of a shortlist for one query, best first."""

    numbers: np.ndarray
    """(videos,) int64: numbers in the index."""
    similarity: np.ndarray
    """(videos,) float32, falling."""


class VideoSearch:
    """Ranks the videos of an index with a trained retriever."""

    def __init__(
        self, run: LoadedRun, opened: OpenedIndex, *, device: torch.device, on_progress: OnProgress | None = None
    ) -> None:
        head = cast(RetrievalHead, run.head)  # `open_search` has looked its task up
        self.run, self.head, self.text, self.device = run, head.to(device), run.text, device
        self.index: PooledIndex = opened.index
        self._opened = opened  # keeps a temporary folder
        with scoring((self.head,), device, "float32"):
            self._coarse: CoarseVectors = open_coarse(self.index, self.head, run.record, device, on_progress)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._opened.notes, *(f"{key}: {why}" for key, why in self.index.damaged.items()))

    @property
    def failures(self) -> dict[str, str]:
        """Videos that could not be read, and why."""
        return dict(self.index.record.failures)

    def rank(
        self,
        queries: Sequence[str],
        shortlist: int,
        among: np.ndarray | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[RankedVideos]:
        """The ranked videos of each query. among: rising numbers of the videos that take part; None: all. Progress in queries."""
        every = np.arange(len(self.index)) if among is None else among
        ranked: list[RankedVideos] = []
        for first in range(0, len(queries), QUERIES_PER_PASS):
            part = queries[first : first + QUERIES_PER_PASS]
            rough = self.rough(part, every) if shortlist < len(every) else None
            with scoring((self.head, self.text.encoder), self.device, "float32"):
                words = sentences_of(self.text, part, self.device)
                for number in range(len(part)):
                    own = words.select(torch.tensor([number], device=self.device))
                    numbers = every if rough is None else every[best_of(rough[number], shortlist)]
                    ranked.append(ordered(numbers, self._exact(own, numbers)[0]))
                    if on_progress is not None:
                        on_progress(len(ranked), len(queries), "ranking videos")
        return ranked

    def similarity(
        self, queries: Sequence[str], numbers: np.ndarray, on_progress: OnProgress | None = None
    ) -> np.ndarray:
        """(queries, videos) float32: every query with every one of these videos, exactly. Progress in videos."""
        with scoring((self.head, self.text.encoder), self.device, "float32"):
            return self._exact(sentences_of(self.text, queries, self.device), numbers, on_progress)

    def rough(self, queries: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        """(queries, videos) float32: what the shortlist is made by."""
        with scoring((self.head, self.text.encoder), self.device, "float32"):
            texts = self.head.coarse(sentences_of(self.text, queries, self.device))
            products: np.ndarray = self._coarse.products(texts)[:, self.index.table.row[numbers]]
        finite: np.ndarray = np.nan_to_num(products, nan=-np.inf)
        return finite

    def _exact(self, words: Words, numbers: np.ndarray, on_progress: OnProgress | None = None) -> np.ndarray:
        similarity = np.empty((len(words.sentence), len(numbers)), dtype=np.float32)
        for first in range(0, len(numbers), VIDEOS_PER_PASS):
            part = numbers[first : first + VIDEOS_PER_PASS]
            frames = torch.from_numpy(self.index.frames(part)).to(self.device)
            similarity[:, first : first + len(part)] = self.head.similarity(words, frames).float().cpu().numpy()
            if on_progress is not None:
                on_progress(first + len(part), len(numbers), "scoring videos")
        if not np.isfinite(similarity).all():
            raise CheckpointError(
                f"{self.run.folder}: head {self.head.name} gives scores that are not finite on finite frames\n"
                "its weights are damaged or its training diverged: use another checkpoint"
            )
        return similarity


def open_search(
    folder: Path, cache: Path, *, device: torch.device, on_progress: OnProgress | None = None
) -> VideoSearch:
    """A run and the videos of its space; everything that can be wrong with names is said before a frame is read."""
    record = read_run(folder)
    if not task_of(record.head).ranks_videos or record.recipe is None:
        raise CheckpointError(
            f"--retriever {folder}: head {record.head} ranks no videos\n"
            "train one that does: qle train-heads --head tmass"
        )
    frames = FrameSource.from_recipe(open_cache(cache), record.recipe)
    check_space(record, frames.space)
    run = load_run(folder, device)
    unkept = FrameSource(frames.space, frames.stream, frames.num_frames, keep_bytes=0)
    opened = open_pooled(unkept, on_progress)
    _check_any_video(opened, cache)
    try:
        return VideoSearch(run, opened, device=device, on_progress=on_progress)
    except DamagedIndexError:  # found where its bytes are first read
        remove(unkept.space.path, folder_of(unkept) / RECORD_FILE)
        return VideoSearch(run, open_pooled(unkept, on_progress), device=device, on_progress=on_progress)


def _check_any_video(opened: OpenedIndex, cache: Path) -> None:
    if not len(opened.index):
        failures = opened.index.record.failures
        raise CacheMissingError(
            f"{opened.index.space} holds no video that can be searched"
            + (f", {len(failures)} cannot be read: {next(iter(failures.values()))}" if failures else " yet")
            + f"\nfill it with: qle extract --cache {cache} ..."
        )


def best_of(score: np.ndarray, length: int) -> np.ndarray:
    """Rising places of the highest scores; of equal ones at the end of the list the first."""
    if length >= len(score):
        return np.arange(len(score))
    edge = np.partition(score, len(score) - length)[len(score) - length]
    above = np.flatnonzero(score > edge)
    level = np.flatnonzero(score == edge)[: length - len(above)]
    return np.sort(np.concatenate([above, level]))


def ordered(numbers: np.ndarray, similarity: np.ndarray) -> RankedVideos:
    """Numbers rise with the key, so a stable order settles ties by key."""
    order = np.argsort(-similarity, kind="stable")
    return RankedVideos(numbers=numbers[order], similarity=similarity[order])
