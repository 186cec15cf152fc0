"""A probed video becomes rows, a writer and clips for each backbone, and ranges for the decoders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qle.backbones.preprocess import Preprocess
from qle.cache.records import SourceFacts
from qle.cache.writer import VideoWriter
from qle.durable import Durability
from qle.errors import DecodeError
from qle.extract.decode.decoder import choose_decoder
from qle.extract.decode.tasks import DecodeTask, Probed
from qle.extract.engine.assembly import ClipAssembler
from qle.extract.engine.clips import ClipPlan
from qle.extract.engine.job import Job, JobTarget, Opened
from qle.extract.sampling import Sampling, plan_rows, split_rows
from qle.extract.target import Target
from qle.types import StoreKind


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How the work is done. Nothing here changes a stored token."""

    sampling: Sampling
    store: StoreKind = "zarr"
    decoder: str = "auto"
    num_workers: int = 1
    """Decode processes."""
    num_lanes: int = 1
    """Forward threads: 1 on an accelerator, one for each core on a CPU."""
    batch_frames: int = 32
    """Frames in a forward pass."""
    durability: Durability = "full"
    keep_partial: bool = False
    """Commit what is there of a file that broke off; else it fails."""
    keep_damaged: bool = False
    """Count rows of damaged frames as valid."""
    stall_limit_s: float = 120.0
    """A decoder that gives nothing for so long is killed, and its video fails."""
    decode_memory_bytes: int = 4 << 30
    """A decoder that grows beyond this is killed, and its video fails."""


class Opener:
    """Opens one video after another with the same options."""

    def __init__(
        self,
        options: EngineOptions,
        geometries: Sequence[Preprocess],
        attempts: dict[Target, dict[str, int]],
        tags: Iterator[int],
    ) -> None:
        self._options = options
        self._geometries = tuple(geometries)
        self._attempts = attempts
        self._tags = tags

    def open(self, job: Job, event: Probed) -> None:
        """Fills `job.opened`, its parts and its tasks; DecodeError when there is nothing to get from the file."""
        info, source = event.info, job.source
        try:
            rows = plan_rows(
                *(info.pts_s, info.end_s, info.time_base, self._options.sampling),
                from_s=source.start_s,
                until_s=source.end_s,
            )
        except DecodeError as error:
            raise DecodeError(f"{source.path}: {error}", kind=error.kind) from error
        if rows.num_rows == 0:
            raise DecodeError(
                f"{source.path}: no frame between {source.start_s} and {source.end_s} s; "
                f"the video runs from {info.start_s:.3f} to {info.end_s:.3f} s",
                kind="no-rows",
            )
        job.opened = opened = Opened(info, rows, event.content_box)
        decoder = choose_decoder(info, self._options.decoder)
        for target in job.targets:
            job.parts.append(self._open_part(job, opened, target, decoder))
        needed = np.unique(np.concatenate([part.assembler.rows_needed for part in job.parts]))
        job.tasks.extend(self._tasks(opened, needed, decoder))

    def _open_part(self, job: Job, opened: Opened, target: Target, decoder: str) -> JobTarget:
        info = opened.info
        facts = SourceFacts(
            path=os.path.abspath(job.source.path),
            fingerprint=info.fingerprint,
            start_s=job.source.start_s,
            end_s=job.source.end_s,
            codec=info.codec,
            width=info.width,
            height=info.height,
            duration_s=info.duration_s,
            fps=info.average_fps,
            num_frames=info.num_frames,
            frames_expected=info.frames_expected,
            decoder=decoder,
            keeps_damaged=self._options.keep_damaged,
        )
        writer = VideoWriter.open(
            target.folder,
            job.source.key,
            rows=opened.rows,
            source=facts,
            store=self._options.store,
            durability=self._options.durability,
            replace=job.is_replacing,
            has_claim=True,
        )
        plan = ClipPlan(opened.rows.num_rows, target.backbone.context)
        assembler = ClipAssembler(plan, writer.is_done, target.backbone.preprocess.output_shape)
        attempt = self._attempts[target].get(job.source.key, 0) + 1
        return JobTarget(job, target, opened, writer, assembler, attempt)

    def _tasks(self, opened: Opened, needed: np.ndarray, decoder: str) -> list[DecodeTask]:
        frame_index = opened.rows.frame_index[needed]
        ranges = split_rows(frame_index, opened.info.is_key, self._options.num_workers)
        return [
            DecodeTask(
                tag=next(self._tags),
                info=opened.info,
                decoder=decoder,
                rows=needed[start:stop],
                frame_index=frame_index[start:stop],
                geometries=self._geometries,
                content_box=opened.content_box,
            )
            for start, stop in ranges
        ]
