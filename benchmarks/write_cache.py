"""How fast videos are committed, beside plain files with the same bytes and the same fsyncs.

    python benchmarks/write_cache.py [--rows 600] [--repeats 5] [--dir FOLDER] [--json]

A video of (rows, 14, 14, 768) float16 with its frame vectors is written in batches of 32 rows and committed, durability
"full", as Zarr and as HDF5. The limit writes the same sizes into plain files of the same number, each fsynced when it is
full, and fsyncs the folder; no hashes, no metadata, no rename. They take turns; the ratio is the median over the turns
(of the rates: 1 is the limit, the target is 0.8). --dir puts the temporary folder on the disk to be measured.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from qle.cache.records import SourceFacts
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.writer import VideoWriter
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, StoreKind, Stream

PATCH = Stream(name="patch", row_shape=(14, 14, 768), axes=("rows", "cols", "dim"), dtype="float16")
FRAME = Stream(name="frame", row_shape=(768,), axes=("dim",), dtype="float16")
SPEC = SpaceSpec(name="benchmark", hashed={"for": "write_cache"}, streams=(PATCH, FRAME), recorded={})
SOURCE = SourceFacts(path="none", fingerprint=SourceFingerprint(size=0, mtime_ns=0, edge_hash=""))
BATCH = 32


def write_video(space: SpaceFolder, store: StoreKind, patches: np.ndarray, frames: np.ndarray, num_rows: int) -> Path:
    """One video through the writer; returns its folder."""
    count = np.arange(num_rows)
    rows = RowPlan(frame_index=count, pts_s=count / 1.0, is_valid=np.ones(num_rows, dtype=bool))
    writer = VideoWriter.open(space, store, rows, SOURCE, store=store)
    for start in range(0, num_rows, BATCH):
        some = count[start : start + BATCH]
        writer.write("patch", some, patches[: len(some)])
        writer.write("frame", some, frames[: len(some)])
    writer.commit()
    folder = space.folder(store)
    assert folder is not None
    return folder


def write_plain(folder: Path, sizes: list[int], content: memoryview) -> None:
    """Files of these sizes, each on the disk before the next begins, then their folder."""
    folder.mkdir()
    for number, size in enumerate(sizes):
        with open(folder / str(number), "wb", buffering=0) as file:
            while size:
                size -= file.write(content[: min(size, len(content))])
            os.fsync(file.fileno())
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def measure(folder: Path, num_rows: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of every run of the two stores and of their limits."""
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((BATCH, *PATCH.row_shape), dtype=np.float32).astype(np.float16)
    frames = rng.standard_normal((BATCH, *FRAME.row_shape), dtype=np.float32).astype(np.float16)
    content = patches.reshape(-1).view(np.uint8).data
    space = create_space(folder / "cache", SPEC)
    seconds: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        for store in ("zarr", "hdf5"):
            started = time.perf_counter()
            video = write_video(space, store, patches, frames, num_rows)
            written = time.perf_counter()
            sizes = [path.stat().st_size for path in video.rglob("*") if path.is_file()]
            shutil.rmtree(video)
            plain_started = time.perf_counter()
            write_plain(folder / "plain", sizes, content)
            plain_written = time.perf_counter()
            shutil.rmtree(folder / "plain")
            if repeat:  # the first run imports and warms up
                seconds.setdefault(store, []).append(written - started)
                seconds.setdefault(f"plain files like {store}", []).append(plain_written - plain_started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        seconds = measure(Path(folder), options.rows, options.repeats)
    size = options.rows * (PATCH.row_bytes + FRAME.row_bytes)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    results = [
        {
            "store": store,
            "seconds": medians[store],
            "mb_per_s": size / medians[store] / 1e6,
            "limit_mb_per_s": size / medians[f"plain files like {store}"] / 1e6,
            "ratio": float(np.median(np.divide(seconds[f"plain files like {store}"], seconds[store]))),
        }
        for store in ("zarr", "hdf5")
    ]
    if options.json:
        print(json.dumps({"rows": options.rows, "bytes": size, "results": results, "seconds": seconds}))
        return
    print(f"{options.rows} rows, {size / 1e6:.0f} MB, durability full, median of {options.repeats}")
    for row in results:
        print(
            f"{row['store']:<6} {row['mb_per_s']:7.0f} MB/s   plain files {row['limit_mb_per_s']:7.0f} MB/s   "
            f"ratio {row['ratio']:.2f}   ({row['seconds'] * 1e3:.0f} ms)"
        )


if __name__ == "__main__":
    main()
