"""How fast training batches come out of a cache, from RAM, mapped files and streamed, beside copying their bytes.

    python benchmarks/loader.py [--videos 12] [--rows 300] [--windows 8] [--window 16] [--workers 2] [--step-ms 300] [--json]

(14, 14, 768) float16 rows (M2CRL-B) in videos of 300 rows, in batches of 8 windows of 16 rows with 6 queries each; written by
the real writer into a temporary folder (1.1 GB) and read warm. For each placement:

* CPU time of this process for a batch while nothing else is done, in memory copies of as many bytes out of a large array into
  a buffer that is there already (1 is the limit). CPU time, because it is what a training step on the CPU loses, and because
  machines are shared; of `streamed` it leaves out what its processes do, so bytes a second of the clock stand beside it.
* the share of a step that the consumer waits, with a step of `--step-ms` that keeps the cores free (a GPU's step) or busy
  (`--busy`: matrix products on every core). The target is < 0.02.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from qle.cache.reader import Space, open_cache
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.data.annotations import Annotation
from qle.data.loading.share import Share
from qle.data.lookup import match_videos
from qle.tasks.rows.batches.loader import DataConfig, training_batches
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream

PATCH = Stream(name="patch", row_shape=(14, 14, 768), axes=("rows", "cols", "dim"), dtype="float16")
SPEC = SpaceSpec(name="benchmark", hashed={"for": "loader"}, streams=(PATCH,), recorded={})
SOURCE = SourceFacts(path="none", fingerprint=SourceFingerprint(size=0, mtime_ns=0, edge_hash=""))
NUM_QUERIES = 15
PLACEMENTS = ("ram", "mapped", "streamed")


def make_data(folder: Path, num_videos: int, num_rows: int) -> tuple[Space, list[Annotation]]:
    """Videos of noise, and annotations that cover a fifth of each with every query."""
    space = create_space(folder / "cache", SPEC)
    count = np.arange(num_rows)
    rows = RowPlan(frame_index=count, pts_s=count / 1.0, is_valid=np.ones(num_rows, dtype=bool))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((16, *PATCH.row_shape), dtype=np.float32).astype(np.float16)
    annotations = []
    for video in range(num_videos):
        writer = VideoWriter.open(space, f"{video}.mp4", rows, SOURCE, store="zarr", durability="none")
        for start in range(0, num_rows, 16):
            part = np.roll(noise, start + video, axis=-1)[: num_rows - start]
            writer.write("patch", count[start : start + len(part)], part)
        writer.commit()
        for query in range(NUM_QUERIES):
            begins = np.sort(rng.uniform(0, num_rows - 20, 3)).tolist()
            windows = tuple((begin, begin + 20.0) for begin in begins)
            annotations.append(
                Annotation(qid=f"{video}-{query}", video=f"{video}", query=f"query {query}", windows=windows)
            )
    return open_cache(folder / "cache").space(), annotations


def copy_cpu_s(size_bytes: int) -> float:
    """CPU seconds of a plain copy out of a large array, in one thread; the median of some dozen."""
    source, target = np.ones(8 * size_bytes, np.uint8), np.ones(size_bytes, np.uint8)
    seconds = []
    for number in range(40):
        started = time.thread_time()
        np.copyto(target, source[number % 8 * size_bytes :][:size_bytes])
        seconds.append(time.thread_time() - started)
    return float(np.median(seconds))


def step(seconds: float, is_busy: bool) -> None:
    """A training step of this length, on a device that leaves the cores alone or on all of them."""
    if not is_busy:
        time.sleep(seconds)
        return
    matrix = torch.ones(512, 512)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix @ matrix


def measure(
    space: Space, annotations: list[Annotation], config: DataConfig, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds to open, CPU seconds of a batch, bytes a second, and the share of the step that is waited for."""
    started = time.perf_counter()
    with training_batches(
        space, match_videos(space, annotations)[0], config, Share(seed=0), streams=("patch",)
    ) as batches:
        opened_s = time.perf_counter() - started
        for _ in batches:  # warms, and checks each row once
            pass
        started, cpu_s, num_bytes, num_batches = time.perf_counter(), time.process_time(), 0, 0
        for epoch in (1, 2):
            batches.set_epoch(epoch)
            for batch in batches:
                num_bytes, num_batches = num_bytes + batch.streams["patch"].nbytes, num_batches + 1
        cpu_s = (time.process_time() - cpu_s) / num_batches
        rate = num_bytes / (time.perf_counter() - started)
        batches.set_epoch(3)
        running, num_steps = iter(batches), min(len(batches) - 1, options.steps)
        next(running)
        started, waited_s = time.perf_counter(), batches.wait_s
        for _ in range(num_steps):
            step(options.step_ms / 1e3, options.busy)
            next(running)
        share = (batches.wait_s - waited_s) / (time.perf_counter() - started)
        running.close()  # type: ignore[attr-defined]
    return {"open_s": opened_s, "cpu_s": cpu_s, "bytes_per_s": rate, "wait_share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("videos", 12), ("rows", 300), ("windows", 8), ("window", 16), ("workers", 2), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step-ms", type=float, default=300.0)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    batch_bytes = options.windows * options.window * PATCH.row_bytes
    limit = copy_cpu_s(batch_bytes)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        space, annotations = make_data(Path(folder), options.videos, options.rows)
        for placement in PLACEMENTS:
            config = DataConfig(
                window_rows=options.window,
                windows_per_batch=options.windows,
                placement=placement,  # type: ignore[arg-type]
                num_workers=options.workers,
            )
            results[placement] = measure(space, annotations, config, options)
    if options.json:
        print(json.dumps({"copy_cpu_s": limit, "step_ms": options.step_ms, "busy": options.busy, "results": results}))
        return
    print(f"limit: {1e3 * limit:.2f} ms of CPU to copy a batch of {batch_bytes / 1e6:.1f} MB")
    for placement, found in results.items():
        print(
            f"{placement:<9} {1e3 * found['cpu_s']:6.2f} ms of CPU a batch, {found['cpu_s'] / limit:5.2f} copies   "
            f"{found['bytes_per_s'] / 1e9:5.2f} GB/s   waits {100 * found['wait_share']:5.2f} % of steps of "
            f"{options.step_ms:g} ms   opened in {found['open_s']:.1f} s"
        )


if __name__ == "__main__":
    main()
