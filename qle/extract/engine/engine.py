"""The loop of one device: videos in, committed tokens out.

    probe -> plan -> [decode processes] -> shared memory -> clips -> batches -> [forward] -> [write] -> commit

The loop itself only moves things: it opens videos, hands ranges to idle decoders, copies their frames into clips and the
clips into batches. Everything slow happens in the decode processes, the forward lanes and the write thread. What ends a
video (a decoder that dies, numbers that cannot be stored) ends that video alone; what ends the run (a full disk, a bug,
Ctrl-C) leaves every other video pending, with its finished shards kept.
"""

import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import torch

from qle.cache.records import ErrorRecord
from qle.errors import CacheError, DecodeError
from qle.extract.decode.pool import DecodePool
from qle.extract.decode.tasks import DecodeTask, Event, Failed, Frames, Probed, ProbeTask, bytes_per_row
from qle.extract.engine.assembly import Batch
from qle.extract.engine.job import Job, JobTarget, out_of_memory
from qle.extract.engine.mailbox import CancelledError
from qle.extract.engine.opening import EngineOptions, Opener
from qle.extract.engine.stages import ForwardStage, Outcome, WriteStage, ended_by
from qle.extract.engine.worklist import WorkList
from qle.extract.plan import size_and_time
from qle.extract.progress import Progress
from qle.extract.target import Target

TICK_S = 0.05
"""Longest wait of the loop before it looks at everything again."""

MAX_OPEN = 128
"""Videos in flight. Without an end, many short videos before a disk that is slow to sync would pile up open files."""


class Engine:
    """One run of one process over the shared list of work."""

    def __init__(
        self, work: WorkList, targets: Sequence[Target], options: EngineOptions, on_progress: Callable[[Progress], None]
    ) -> None:
        self._work = work
        self._targets = targets
        self._options = options
        self._on_progress = on_progress
        self._jobs: list[Job] = []
        """In the order in which they were opened; a handful, or MAX_OPEN where commits are slow."""
        self._tags = itertools.count()
        self._owners: dict[int, Job] = {}
        """Task in flight -> its video."""
        self._probes: deque[Job] = deque()
        self._batches: dict[Target, Batch[JobTarget]] = {}
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._crash: BaseException | None = None
        self._geometries = tuple(dict.fromkeys(target.backbone.preprocess for target in targets))
        self._attempts = {
            target: {key: record.attempt for key, record in target.folder.errors.latest().items()} for target in targets
        }
        self._opener = Opener(options, self._geometries, self._attempts, self._tags)
        self._progress = Progress(videos_total=work.num_fresh)
        self._last_report_s = 0.0

    def run(self) -> Progress:
        """Until the list is done. Raises what must end the run; a failed video does not."""
        self._writes = WriteStage(self._outcomes.put, self._note_crash)
        self._forwards = ForwardStage(self._writes.inbox, self._options.num_lanes, self._outcomes.put, self._note_crash)
        self._pool = DecodePool(
            self._options.num_workers,
            frame_bytes=bytes_per_row(self._geometries),
            stall_limit_s=self._options.stall_limit_s,
            memory_limit_bytes=self._options.decode_memory_bytes,
        )
        try:
            with self._pool:
                while not self._is_finished():
                    self._turn()
            self._forwards.close()
            self._writes.close()
        except CancelledError:  # a stage has died, and the loop was waiting for it
            self._give_up()
            raise (self._crash or RuntimeError("a stage was cancelled without a reason")) from None
        except BaseException:
            self._give_up()
            raise
        finally:
            self._work.close()
        self._report(is_last=True)
        return self._progress

    def _is_finished(self) -> bool:
        return not self._jobs and self._work.is_finished

    def _turn(self) -> None:
        if self._crash is not None:
            raise self._crash
        self._settle_outcomes()
        self._open_videos()
        self._feed_decoders()
        for event in self._pool.wait(TICK_S):
            self._handle(event)
        if self._is_starved():
            for target in list(self._batches):
                self._send_batch(target)
        self._report()

    # Opening: from the work list to ranges that decoders can take.

    def _open_videos(self) -> None:
        """One video more than there are decoders, so that a probe is never waited for."""
        while len(self._jobs) < MAX_OPEN and sum(job.is_decoding for job in self._jobs) <= self._options.num_workers:
            if (pending := self._work.take()) is None:
                break
            job = Job(source=pending.source, targets=list(pending.targets), is_replacing=pending.is_replacing)
            self._jobs.append(job)
            self._probes.append(job)
        self._progress.videos_contested = self._work.num_contested

    def _feed_decoders(self) -> None:
        while self._pool.num_idle and self._probes:
            job = self._probes.popleft()
            needs_box = any(target.backbone.preprocess.crop_borders for target in job.targets)
            task = ProbeTask(
                tag=next(self._tags),
                source=job.source,
                needs_content_box=needs_box,
                keep_partial=self._options.keep_partial,
            )
            self._submit(job, task)
        for job in list(self._jobs):
            while self._pool.num_idle and job.tasks:
                self._submit(job, job.tasks.popleft())

    def _submit(self, job: Job, task: ProbeTask | DecodeTask) -> None:
        try:
            self._pool.submit(task)
        except MemoryError as error:
            self._fail(job, out_of_memory(job.source, error))
            self._forget_if_done(job)
            return
        self._owners[task.tag] = job
        job.tasks_running += 1

    def _begin(self, job: Job, event: Probed) -> None:
        self._opener.open(job, event)
        self._progress.videos_opened += 1
        self._progress.rows_planned += sum(part.num_missing for part in job.parts)
        for part in job.parts:
            if part.is_complete:  # every row survived in finished shards of an earlier attempt
                self._writes.commit(part)

    # Frames: from shared memory to clips to batches.

    def _handle(self, event: Event) -> None:
        job = self._owners[event.tag]
        if isinstance(event, Frames):
            try:
                self._add_frames(job, event)
            except MemoryError as error:
                self._fail(job, out_of_memory(job.source, error))
            event.release()
            return
        del self._owners[event.tag]
        job.tasks_running -= 1
        try:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Probed):
                self._begin(job, event)
        except DecodeError as error:
            self._fail(job, error)
        except MemoryError as error:
            self._fail(job, out_of_memory(job.source, error))
        self._forget_if_done(job)

    def _add_frames(self, job: Job, frames: Frames) -> None:
        for part in job.parts:
            if part.is_closed or not self._note_damaged(part, frames.damaged):
                continue
            images = frames.images[self._geometries.index(part.target.backbone.preprocess)]
            for row, image in zip(frames.rows.tolist(), images, strict=True):
                for clip, clip_frames in part.assembler.add(row, image):
                    self._add_clip(part, clip, clip_frames)

    def _note_damaged(self, part: JobTarget, rows: np.ndarray) -> bool:
        """Whether the video is still in our hands."""
        try:
            if len(rows):
                part.note_damaged(rows)
        except CacheError as error:
            self._outcomes.put(ended_by(error, part))
            return False
        return True

    def _add_clip(self, part: JobTarget, clip: int, frames: np.ndarray) -> None:
        if part.target not in self._batches:
            num_clips = max(1, self._options.batch_frames // len(frames))
            self._batches[part.target] = Batch(_empty((num_clips, *frames.shape), part.target.backbone.device))
        batch = self._batches[part.target]
        batch.add(part, clip, frames)
        if batch.is_full:
            self._send_batch(part.target)

    def _send_batch(self, target: Target) -> None:
        batch = self._batches.pop(target)
        batch.pad()
        self._forwards.inbox.put((target, batch))

    def _is_starved(self) -> bool:
        """No decoder has or will get work: what waits in a batch that is not full would wait for ever."""
        return not any(job.is_decoding for job in self._jobs)

    # Endings: committed, failed, or all given up.

    def _settle_outcomes(self) -> None:
        while not self._outcomes.empty():
            outcome = self._outcomes.get()
            part = outcome.job_target
            if outcome.error is not None:
                self._record(part.job, part.target, outcome.error)
            else:
                self._settle(part.job, part.target)
                is_last = not part.job.targets and not part.job.is_failed
                self._progress.videos_done += is_last and outcome.record is not None
                if outcome.record is not None and (faults := outcome.record.source.faults):
                    self._progress.notes.append(f"{part.job.source.key}: {faults}")
            self._forget_if_done(part.job)

    def _fail(self, job: Job, error: DecodeError) -> None:
        for part in job.parts:
            part.close()
        for target in list(job.targets):
            self._record(job, target, error)

    def _record(self, job: Job, target: Target, error: DecodeError) -> None:
        """One line in errors.jsonl; the video counts as failed once, however many backbones it fails for."""
        attempts = self._attempts[target]
        attempts[job.source.key] = attempts.get(job.source.key, 0) + 1
        size, mtime_ns = size_and_time(job.source)
        target.folder.errors.append(
            ErrorRecord(
                key=job.source.key,
                kind=error.kind,
                message=str(error),
                attempt=attempts[job.source.key],
                frames_decoded=error.frames_decoded,
                frames_expected=error.frames_expected,
                source_size=size,
                source_mtime_ns=mtime_ns,
                created=datetime.now(UTC),
            )
        )
        if not job.is_failed:
            job.is_failed = True
            self._progress.videos_failed += 1
            self._progress.notes.append(f"{job.source.key}: {error.kind}: {str(error).splitlines()[0]}")
        self._settle(job, target)

    def _settle(self, job: Job, target: Target) -> None:
        if target in job.targets:
            job.targets.remove(target)
            self._work.release(target, job.source.key)
        if not job.targets:
            self._stop_decoding(job)

    def _stop_decoding(self, job: Job) -> None:
        """Nobody waits for more of this video: its decoders are free for another one."""
        job.tasks.clear()
        for tag, owner in self._owners.items():
            if owner is job:
                self._pool.cancel(tag)

    def _forget_if_done(self, job: Job) -> None:
        if not job.targets and job.tasks_running == 0 and job in self._jobs:
            self._jobs.remove(job)

    def _note_crash(self, error: BaseException) -> None:
        """From any thread: the run cannot go on. Wakes whoever waits for the thread that died."""
        if self._crash is None:
            self._crash = error
        self._forwards.cancel()
        self._writes.cancel()

    def _give_up(self) -> None:
        """Leaves every open video uncommitted, with its whole shards kept."""
        self._forwards.cancel()
        self._writes.cancel()
        for job in self._jobs:
            for part in job.parts:
                part.close()
        self._forwards.join()
        self._writes.join()

    def _report(self, is_last: bool = False) -> None:
        now_s = time.monotonic()
        if not is_last and now_s - self._last_report_s < 0.25:
            return
        self._last_report_s = now_s
        progress = self._progress
        progress.rows_done = self._writes.rows_done
        progress.forward_busy_s, progress.forward_waiting_s = (
            self._forwards.clock.busy_s,
            self._forwards.clock.waiting_s,
        )
        progress.write_busy_s, progress.write_waiting_s = self._writes.clock.busy_s, self._writes.clock.waiting_s
        while not self._forwards.notes.empty():
            progress.notes.append(self._forwards.notes.get())
        self._on_progress(progress)


def _empty(shape: tuple[int, ...], device: torch.device) -> np.ndarray:
    """Room for a batch; pinned where a copy to the device would otherwise wait for one. MemoryError where there is none."""
    if device.type != "cuda":
        return np.empty(shape, np.uint8)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
