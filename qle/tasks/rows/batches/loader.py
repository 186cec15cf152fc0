"""Training batches from a cache: no pixel is decoded and no backbone runs.

    space + annotations -> videos, rows at one rate -> windows of an epoch -> tokens + questions -> RowBatch on the device

`training_batches` makes the reader of one process. Everything random is a function of (seed, epoch, place of the window in
the epoch), so the same batches come again after a resume, from any placement, and over any number of processes together.
A thread makes the next batches while one is worked on; `wait_s` is how long the consumer had to wait all the same.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from qle.cache.reader import Space
from qle.data.annotations import Annotation
from qle.data.loading.buffers import Ahead
from qle.data.loading.plan import Placement, available_ram_bytes, choose_placement
from qle.data.loading.share import Share, check_start
from qle.data.negatives import united_concepts
from qle.data.rows import RowChoice, check_rate, choose_rows
from qle.errors import AnnotationError, CacheMissingError, ConfigError
from qle.heads.rows import RowBatch
from qle.runtime import num_tenants
from qle.segments.spans import rows_of
from qle.tasks.rows.batches import augment
from qle.tasks.rows.batches.collate import collate
from qle.tasks.rows.batches.config import DataConfig
from qle.tasks.rows.batches.packed import DeviceTokens, RamTokens
from qle.tasks.rows.batches.questions import Question, Questioner, sides
from qle.tasks.rows.batches.sources import MappedTokens, TokenSource
from qle.tasks.rows.batches.streamed import StreamedTokens
from qle.tasks.rows.batches.tokens import TokenReader
from qle.tasks.rows.batches.upload import Uploader
from qle.tasks.rows.batches.windows import EpochPlan, WindowBatch

__all__ = ["DataConfig", "TrainingBatches", "training_batches"]

log = logging.getLogger(__name__)


class TrainingBatches:
    """The batches of one process, epoch after epoch. Made by `training_batches`."""

    def __init__(
        self,
        source: TokenSource,
        reader: TokenReader,
        rows: Mapping[str, RowChoice],
        questioner: Questioner,
        plan: EpochPlan,
        config: DataConfig,
        *,
        placement: Placement,
        device: torch.device,
    ) -> None:
        self.placement = placement
        """Where the tokens lie, and why."""
        self.wait_s = 0.0
        """Seconds that the consumer has waited for batches so far."""
        self.skipped: tuple[str, ...] = ()
        """Annotated videos without any valid row."""
        self._source, self._reader, self._rows = source, reader, list(rows.items())
        self._questioner, self._plan, self._config = questioner, plan, config
        self._uploader = Uploader(device)
        self._epoch = self._first_batch = 0
        self._bad_rows = [np.zeros(choice.num_rows, dtype=bool) for choice in rows.values()]
        self._running: Ahead[tuple[RowBatch, torch.cuda.Event | None]] | None = None

    def __len__(self) -> int:
        """Batches of an epoch, the same in every process and every epoch."""
        return self._plan.num_batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """What the next iteration gives: this epoch, from this batch on (a resume reads nothing that was seen before)."""
        check_start(epoch, first_batch, len(self))
        self._epoch, self._first_batch = epoch, first_batch

    @property
    def num_nonfinite_rows(self) -> int:
        """Valid rows that were met so far and hold NaN or inf; they are masked."""
        return int(sum(bad.sum() for bad in self._bad_rows))

    def __iter__(self) -> Iterator[RowBatch]:
        """Batches without words. One iteration at a time: a new one ends the one before."""
        self._stop()
        windows = self._plan.batches(self._epoch)[self._first_batch :]
        epoch, self._first_batch = self._epoch, 0
        running = self._running = Ahead(lambda: self._make(windows, epoch), self._config.prefetch_batches)
        try:
            while True:
                started = time.perf_counter()
                made = next(running, None)
                self.wait_s += time.perf_counter() - started
                if made is None:
                    return
                batch, event = made
                del made
                yield self._uploader.finish(batch, event)
                del batch  # its buffers are free once the consumer lets go of them
        finally:
            if self._running is running:
                self._stop()

    def close(self) -> None:
        """Ends the thread and the processes, and gives the memory back."""
        self._stop()
        self._source.close()

    def __enter__(self) -> "TrainingBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _make(self, batches: Sequence[WindowBatch], epoch: int) -> Iterator[tuple[RowBatch, "torch.cuda.Event | None"]]:
        """Runs in the thread."""
        with self._uploader.enter():
            for windows, tokens in zip(batches, self._source.read(batches), strict=True):
                self._note_bad_rows(windows, tokens.usable)
                questions, drawn = self._draw(windows, epoch)
                augment.apply(tokens.streams, self._reader.streams, drawn)
                batch = collate(windows, tokens, self._rows, questions, self._config.queries_per_window)
                del tokens
                yield self._uploader.begin(batch)
                del batch

    def _draw(self, windows: WindowBatch, epoch: int) -> tuple[list[list[Question]], list[augment.Augmentation]]:
        """Questions and augmentation of each window, by its own random numbers."""
        questions, drawn = [], []
        for video, first, number in zip(
            windows.video.tolist(), windows.first.tolist(), windows.number.tolist(), strict=True
        ):
            key, choice = self._rows[video]
            rng = self._plan.rng(epoch, number)
            stop = min(first + self._config.window_rows, choice.num_rows)
            asked = self._questioner.ask(key, first, stop, rng)
            change = augment.draw(self._config, self._reader.streams, rng)
            questions.append([Question(augment.mirrored(q.text, change), q.relevance, q.known) for q in asked])
            drawn.append(change)
        return questions, drawn

    def _note_bad_rows(self, windows: WindowBatch, usable: np.ndarray) -> None:
        for window, (video, first) in enumerate(zip(windows.video.tolist(), windows.first.tolist(), strict=True)):
            valid = self._reader.valid[video][first : first + usable.shape[1]]
            is_bad = valid & ~usable[window, : len(valid)]
            if not is_bad.any():
                continue
            if not self._bad_rows[video].any():
                row = first + int(np.flatnonzero(is_bad)[0])
                log.warning("video %s: row %d holds NaN or inf; such rows are left out", self._rows[video][0], row)
            self._bad_rows[video][first : first + len(valid)] |= is_bad


def training_batches(
    space: Space,
    annotations: Mapping[str, Sequence[Annotation]],
    config: DataConfig,
    share: Share,
    *,
    streams: Sequence[str],
) -> TrainingBatches:
    """Batches of windows of the annotated videos. annotations: by the key of their video (data/lookup.py).

    streams: those that the head reads. With the same `windows_per_batch` the batches of all processes together are those
    of a single one.
    """
    device = torch.device(share.device)
    _check(space, config, streams, share)
    matched, rows, skipped = _lessons(space, annotations, config)
    if skipped:
        log.warning("%d annotated videos have no valid row and are left out: %s", len(skipped), ", ".join(skipped[:3]))
    reader = TokenReader(space, rows, streams, config.window_rows)
    placement = _placement(reader, config, device, share.num_processes)
    batches = TrainingBatches(
        _source(placement, reader, config, device, share.num_processes),
        reader,
        rows,
        Questioner(matched, rows, config),
        EpochPlan(reader.num_rows, _events(matched, rows), config, share.seed, share.shard),
        config,
        placement=placement,
        device=device,
    )
    batches.skipped = skipped
    return batches


def taught_sides(
    space: Space, annotations: Mapping[str, Sequence[Annotation]], config: DataConfig
) -> tuple[bool, bool]:
    """Whether such a training ever sees a row in which its query happens, and one in which it does not."""
    matched, rows, _ = _lessons(space, annotations, config)
    return sides(matched, rows, config)


def _lessons(
    space: Space, annotations: Mapping[str, Sequence[Annotation]], config: DataConfig
) -> tuple[dict[str, list[Annotation]], dict[str, RowChoice], tuple[str, ...]]:
    """Annotations and rows of every video that something can be learned from; and those without a valid row."""
    united = iter(united_concepts([annotation for asked in annotations.values() for annotation in asked]))
    matched = {key: [next(united) for _ in asked] for key, asked in annotations.items()}
    # Also what nobody has answered: what a video was asked is no negative of it. But windows come from labelled videos alone.
    matched = {key: asked for key, asked in matched.items() if any(annotation.is_labelled for annotation in asked)}
    if not matched:
        raise AnnotationError(
            "there are no annotations that say when anything happens; give a file with at least one query and its windows"
        )
    rows = {key: choose_rows(space.video(key), config.rate_fps) for key in matched}
    skipped = tuple(key for key, choice in rows.items() if not choice.valid.any())
    rows = {key: choice for key, choice in rows.items() if key not in skipped}
    if not rows:
        raise AnnotationError(f"none of the {len(skipped)} annotated videos of {space.path} has a valid row")
    return {key: matched[key] for key in rows}, rows, skipped


def _check(space: Space, config: DataConfig, streams: Sequence[str], share: Share) -> None:
    check_rate(space, config.rate_fps)
    for name in streams:
        if name not in space.streams:
            have = ", ".join(stream.name for stream in space.record.streams)
            raise CacheMissingError(f"{space.path} has no stream {name!r}, which the head reads; it has {have}")
    if config.windows_per_batch % share.num_processes:
        raise ConfigError(
            f"data.windows_per_batch = {config.windows_per_batch} cannot be divided among {share.num_processes} processes\n"
            f"it counts the windows of all of them: choose a multiple of {share.num_processes}"
        )


def _placement(reader: TokenReader, config: DataConfig, device: torch.device, num_processes: int) -> Placement:
    device_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return choose_placement(
        config.placement,
        sum(reader.num_rows) * reader.row_bytes,
        ram_bytes=available_ram_bytes(num_tenants()),
        device_bytes=device_bytes,
        num_processes=num_processes,
    )


def _source(
    placement: Placement, reader: TokenReader, config: DataConfig, device: torch.device, num_processes: int
) -> TokenSource:
    num_windows = config.windows_per_batch // num_processes
    log.info("tokens: %s (%s)", placement.name, placement.reason)
    if placement.name == "device":
        return DeviceTokens(reader, device)
    if placement.name == "ram":
        return RamTokens(reader, num_windows, device)
    if placement.name == "mapped":
        return MappedTokens(reader, num_windows, device)
    return StreamedTokens(reader, num_windows, config.num_workers, config.prefetch_batches)


def _events(
    annotations: Mapping[str, Sequence[Annotation]], rows: Mapping[str, RowChoice]
) -> list[tuple[int, int, int]]:
    """(video, first row, row behind the last) of every window of every annotation."""
    events = []
    for number, (key, choice) in enumerate(rows.items()):
        for annotation in annotations[key]:
            for start_s, end_s in annotation.windows:
                rows_inside = rows_of(start_s, end_s, choice.edges_s)
                events.append((number, rows_inside.start, rows_inside.stop))
    return events
