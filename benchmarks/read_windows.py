"""How fast random windows of tokens are read, beside np.memmap on the same bytes.

    python benchmarks/read_windows.py [--rows 600] [--window 16] [--windows 64] [--batch 8] [--json]

One video of (rows, 14, 14, 768) float16 is committed as Zarr and as HDF5, and its rows are also written as one plain file.
The limit is a copy out of a warm np.memmap of the plain file into a buffer that is there already; everything is warm, in
one thread, and takes turns window by window, so that a disturbance hits all alike. The ratio is time over the limit's
(1 is the limit, the target is 1.2). For scale: the same windows through zarr-python and through h5py slicing.
Disk: three times the video (rows 600: 540 MB) in a temporary folder.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import zarr

from qle.cache.reader import Space, open_cache
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream

PATCH = Stream(name="patch", row_shape=(14, 14, 768), axes=("rows", "cols", "dim"), dtype="float16")
SPEC = SpaceSpec(name="benchmark", hashed={"for": "read_windows"}, streams=(PATCH,), recorded={})
SOURCE = SourceFacts(path="none", fingerprint=SourceFingerprint(size=0, mtime_ns=0, edge_hash=""))


def make_data(folder: Path, num_rows: int) -> tuple[Space, np.ndarray]:
    """The two committed videos, and the plain file, mapped."""
    space = create_space(folder / "cache", SPEC)
    count = np.arange(num_rows)
    rows = RowPlan(frame_index=count, pts_s=count / 1.0, is_valid=np.ones(num_rows, dtype=bool))
    noise = np.random.default_rng(0).standard_normal((16, *PATCH.row_shape), dtype=np.float32).astype(np.float16)
    writers = [
        VideoWriter.open(space, store, rows, SOURCE, store=store, durability="none") for store in ("zarr", "hdf5")
    ]
    with open(folder / "plain", "wb") as plain:
        for start in range(0, num_rows, 16):
            part = np.roll(noise, start, axis=-1)[: num_rows - start]
            plain.write(part.tobytes())
            for writer in writers:
                writer.write("patch", count[start : start + len(part)], part)
    for writer in writers:
        writer.commit()
    mapped = np.memmap(folder / "plain", np.float16, "r", shape=(num_rows, *PATCH.row_shape))
    return open_cache(folder / "cache").space(), mapped


def take_turns(ways: dict[str, Callable[[int], object]], num_rounds: int) -> dict[str, float]:
    """Median seconds of each way over the rounds; each has touched every page before."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(2 * num_rounds):
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]  # everyone is first equally often
            read = ways[name]
            started = time.perf_counter()
            read(number % num_rounds)
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(times[num_rounds:])) for name, times in seconds.items()}


def single_windows(space: Space, mapped: np.ndarray, starts: np.ndarray, length: int) -> dict[str, float]:
    """One window at a time into a buffer."""
    out = np.empty((length, *PATCH.row_shape), np.float16)
    group = zarr.open_group(space.video("zarr").folder, mode="r")["patch"]
    ways: dict[str, Callable[[int], object]] = {
        "np.memmap": lambda i: np.copyto(out, mapped[starts[i] : starts[i] + length]),
        "qle zarr": lambda i: space.video("zarr").read("patch", int(starts[i]), int(starts[i]) + length, out),
        "qle hdf5": lambda i: space.video("hdf5").read("patch", int(starts[i]), int(starts[i]) + length, out),
        "zarr-python slice": lambda i: group[starts[i] : starts[i] + length],
    }
    with h5py.File(space.video("hdf5").folder / "tokens.h5", "r") as file:
        dataset = file["patch"]
        ways["h5py slice"] = lambda i: dataset.read_direct(out, np.s_[starts[i] : starts[i] + length])
        return take_turns(ways, len(starts))


def batched_windows(space: Space, mapped: np.ndarray, starts: np.ndarray, length: int, batch: int) -> dict[str, float]:
    """Whole batches into one buffer."""
    batches = starts[: len(starts) // batch * batch].reshape(-1, batch)
    out = np.empty((batch, length, *PATCH.row_shape), np.float16)

    def by_memmap(i: int) -> None:
        for place, start in enumerate(batches[i]):
            np.copyto(out[place], mapped[start : start + length])

    def by_qle(store: str) -> Callable[[int], object]:
        return lambda i: space.read_windows("patch", [(store, int(s), int(s) + length) for s in batches[i]], out)

    return take_turns({"np.memmap": by_memmap, "qle zarr": by_qle("zarr"), "qle hdf5": by_qle("hdf5")}, len(batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    starts = np.random.default_rng(1).integers(0, options.rows - options.window + 1, options.windows)
    with tempfile.TemporaryDirectory() as folder:
        space, mapped = make_data(Path(folder), options.rows)
        seconds = {
            f"window of {options.window}": single_windows(space, mapped, starts, options.window),
            f"batch of {options.batch}": batched_windows(space, mapped, starts, options.window, options.batch),
        }
    rows = [
        {"read": what, "by": name, "ms": 1e3 * value, "ratio": value / times["np.memmap"]}
        for what, times in seconds.items()
        for name, value in times.items()
    ]
    if options.json:
        print(json.dumps({"rows": options.rows, "window_bytes": options.window * PATCH.row_bytes, "results": rows}))
        return
    print(
        f"windows of {options.window * PATCH.row_bytes / 1e6:.1f} MB out of {options.rows * PATCH.row_bytes / 1e6:.0f} MB"
    )
    for row in rows:
        print(f"{row['read']:<14} {row['by']:<18} {row['ms']:8.3f} ms   {row['ratio']:6.2f} x np.memmap")


if __name__ == "__main__":
    main()
