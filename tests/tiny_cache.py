"""Small spaces and videos for tests of the cache, and a writer that can be killed at any step.

Rows of 64 bytes, so that 1,100 of them make three shards and no time.
"""

import json
import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from qle.cache.records import CommitRecord, SourceFacts
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.writer import VideoWriter
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, StoreKind, Stream
from tests.running import record_fields

NUM_ROWS = 1100
KEY = "ward 3/video.mp4"

PROCESSES = multiprocessing.get_context("forkserver")
"""Real processes that start fast: forked from a clean server that has the imports done."""
PROCESSES.set_forkserver_preload(["tests.tiny_cache", "zarr", "h5py", "qle.cache.claims", "qle.cache.reader"])


def tiny_spec(dtype: str = "float16") -> SpaceSpec:
    """A space with a patch map, a pooled vector and, where it must be, scales."""
    streams = [
        Stream(name="patch", row_shape=(2, 2, 8), axes=("rows", "cols", "dim"), dtype=dtype),
        Stream(name="frame", row_shape=(8,), axes=("dim",), dtype="float16"),
    ]
    if dtype == "int8":
        streams.append(Stream(name="scale", row_shape=(2, 2), axes=("rows", "cols"), dtype="float32"))
    return SpaceSpec(name=f"tiny-{dtype}", hashed={"dtype": dtype}, streams=tuple(streams), recorded={"device": "cpu"})


def tiny_plan(num_rows: int = NUM_ROWS) -> RowPlan:
    """Every second frame of a film at 4 fps; every tenth row is invalid."""
    count = np.arange(num_rows)
    return RowPlan(frame_index=2 * count, pts_s=0.25 + count / 2, is_valid=count % 10 != 9)


def tiny_source(seed: int = 0) -> SourceFacts:
    fingerprint = SourceFingerprint(size=1000 + seed, mtime_ns=seed, edge_hash=f"{seed:032x}")
    return SourceFacts(path="/films/video.mp4", fingerprint=fingerprint, codec="h264", fps=4.0)


def tiny_values(num_rows: int = NUM_ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    """Float streams of a video."""
    rng = np.random.default_rng(seed)
    patch = rng.standard_normal((num_rows, 2, 2, 8)).astype(np.float32)
    return {"patch": patch, "frame": patch.mean((1, 2)).astype(np.float16)}


def fill(writer: VideoWriter, values: dict[str, np.ndarray], batch: int = 100) -> None:
    """Write in batches whatever is not there yet."""
    todo = np.flatnonzero(~writer.is_done)
    for start in range(0, len(todo), batch):
        rows = todo[start : start + batch]
        for name, stream in values.items():
            writer.write(name, rows, stream[rows])


def commit_video(
    space: SpaceFolder, key: str = KEY, *, store: StoreKind = "zarr", num_rows: int = NUM_ROWS, seed: int = 0
) -> CommitRecord:
    """A whole video; fast, since without fsync."""
    with VideoWriter.open(space, key, tiny_plan(num_rows), tiny_source(seed), store=store, durability="none") as writer:
        fill(writer, tiny_values(num_rows, seed))
        return writer.commit()


def commit_rows(
    space: SpaceFolder,
    key: str,
    pts_s: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    values: dict[str, np.ndarray] | None = None,
    store: StoreKind = "zarr",
    frame_index: np.ndarray | None = None,
    **source: float | None,
) -> CommitRecord:
    """A video with rows shown at these times. `source`: duration_s, start_s, end_s, fps of the record."""
    num_rows = len(pts_s)
    plan = RowPlan(
        frame_index=np.arange(num_rows) if frame_index is None else frame_index,
        pts_s=np.asarray(pts_s, dtype=np.float64),
        is_valid=np.ones(num_rows, dtype=bool) if valid is None else valid,
    )
    facts = SourceFacts(**{**tiny_source().model_dump(), "fps": 0.0, **source})
    seed = sum(key.encode())
    with VideoWriter.open(space, key, plan, facts, store=store, durability="none") as writer:
        fill(writer, tiny_values(num_rows, seed) if values is None else values)
        return writer.commit()


def write_until(
    root: Path,
    store: StoreKind,
    fatal_step: str,
    fatal_count: int = 1,
    *,
    replace: bool = False,
    num_rows: int = NUM_ROWS,
) -> None:
    """The body of a process that writes a video and kills itself the n-th time that a step is reached."""
    seen = 0

    def die(step: str) -> None:
        nonlocal seen
        seen += step == fatal_step
        if seen == fatal_count:
            os.kill(os.getpid(), signal.SIGKILL)

    space = create_space(root, tiny_spec())
    writer = VideoWriter.open(space, KEY, tiny_plan(num_rows), tiny_source(), store=store, replace=replace, on_step=die)
    fill(writer, tiny_values(num_rows))
    writer.commit()


def run(target: object, *args: object, **named: object) -> int:
    """Exit code of a real process; -9 after a kill."""
    process: BaseProcess = PROCESSES.Process(target=target, args=args, kwargs=named)  # type: ignore[arg-type]
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def edit_record(path: Path, **fields: object) -> None:
    """Another value in a record, as a stranger or an older qle might have written it: without a digest of itself."""
    path.write_text(json.dumps(record_fields(path) | fields))


def nothing_left(root: Path) -> bool:
    """Whether no command has left anything in a cache that is not a part of it."""
    temp = [path for name in ("tmp", "claims") for path in root.glob(f"*/{name}/*")]
    unnamed = [path for pattern in (".qle-*", "*/.qle-*", "*/*/.qle-*") for path in root.glob(pattern)]
    assert not temp + unnamed
    return True


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a video but the record, which knows about attempts and hours."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "_COMMIT.json"
    }
