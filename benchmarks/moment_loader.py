"""Delivering an epoch of moment retrieval to the training step, beside three .npz an item as the published loaders do it.

    python benchmarks/moment_loader.py [--items 7218] [--batch 32] [--epochs 5] [--placements ram mapped streamed] [--json]

As QVHighlights: 7,218 items, 75 clips each of SlowFast (2,304) and CLIP (512) features in float16, and queries of some 12
words of 512 numbers, written by the real writer into a temporary folder (3 GB on the disk, 3 GB of memory for `ram`) and read
warm. On one core and in seconds of that core, since machines are shared; with warm files nothing is waited for. "ready" is
what it takes to hand over all batches of an epoch: features normalised and joined with temporal endpoints, padded, words,
moments, saliency, pairs, negatives. For each placement

* seconds an epoch (the median of some), and how many times a plain copy of the same bytes, which is the limit;
* the same with the features made float32 on the CPU, which the head does (on a device it costs nothing that counts).

The other way is what moment_detr, QD-DETR and CG-DETR do in `__getitem__` and collate: three np.load, float32, unit length,
cut, joined, endpoints, a loop of padding; some hundred items, scaled to the epoch. One process; their workers share the time
among cores and pay for the way back.

On a shared virtual machine of 2 cores (AMD EPYC, 32 MB of L3), Python 3.11, torch 2.13, epochs of 3.05 GB:

    plain copy 0.19 s    three .npz an item 10.9 s
    ram        0.47 s (2.4 copies), in float32 0.86 s, packed in 31 s before the first step
    mapped     0.44 s (2.3 copies), in float32 0.82 s, packed in 35 s
    streamed   13.5 s: it opens, reads and normalises every window again, so it is for sets that no memory and no disk hold

Of the 1.7 ms of a batch out of a `ram` pack of 600 items the features take 0.95, targets 0.32, words 0.17.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qle.cache.reader import Cache, open_cache
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.data.annotations import Annotation
from qle.data.loading.share import Share
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import StreamChoice
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.loader import moment_batches
from qle.text.bank import QueryBank
from qle.text.request import TextRequest
from qle.text.stored import build_stored, write_stored_words
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream

STREAMS = {"slowfast": 2304, "clip": 512}
NUM_CLIPS, CLIP_S, NUM_WORDS, WORD_DIM = 75, 2.0, 12, 512


def make_cache(folder: Path, num_videos: int) -> Cache:
    """Spaces of noise, as `qle cache import --clip-length 2` makes them."""
    rng = np.random.default_rng(0)
    for name, dim in STREAMS.items():
        stream = Stream(name="frame", row_shape=(dim,), axes=("dim",), dtype="float16")
        sampling = {"rule": "(row + 0.5) * clip_length_s", "clip_length_s": CLIP_S}
        spec = SpaceSpec(name=name, hashed={"sampling": sampling, "name": name}, streams=(stream,), recorded={})
        space = create_space(folder, spec)
        noise = rng.standard_normal((NUM_CLIPS, dim), dtype=np.float32).astype(np.float16)
        print_of = SourceFingerprint(size=0, mtime_ns=0, edge_hash="")
        facts = SourceFacts(path="none", fingerprint=print_of, start_s=0.0, end_s=NUM_CLIPS * CLIP_S)
        times_s = (np.arange(NUM_CLIPS) + 0.5) * CLIP_S
        plan = RowPlan(
            frame_index=np.arange(NUM_CLIPS), pts_s=times_s, is_valid=np.ones(NUM_CLIPS, dtype=bool)
        )  # fmt: skip
        for video in range(num_videos):
            with VideoWriter.open(space, f"v{video}", plan, facts, store="zarr", durability="none") as writer:
                writer.write("frame", np.arange(NUM_CLIPS), np.roll(noise, video, axis=1))
                writer.commit()
    return open_cache(folder)


def make_annotations(num_items: int) -> list[Annotation]:
    """Two moments each, rated by three."""
    rng = np.random.default_rng(0)
    found = []
    for item in range(num_items):
        starts = np.sort(rng.choice(NUM_CLIPS // 10, 2, replace=False)) * 20.0
        windows = tuple((start, start + 2.0 * int(rng.integers(1, 9))) for start in starts.tolist())
        saliency = np.full((NUM_CLIPS, 3), np.nan, dtype=np.float32)
        for start, end in windows:
            saliency[int(start // 2) : int(end // 2)] = rng.integers(0, 5, (int((end - start) // 2), 3))
        found.append(
            Annotation(
                qid=str(item), video=f"v{item}", query=f"query number {item}", windows=windows, saliency=saliency
            )
        )
    return found


def make_words(path: Path, annotations: list[Annotation]) -> QueryBank:
    """A frozen encoder of known queries."""
    rng = np.random.default_rng(0)
    words = {
        one.query: (rng.standard_normal((NUM_WORDS + int(rng.integers(-4, 5)), WORD_DIM)).astype(np.float16), None)
        for one in annotations
    }
    write_stored_words(path, words)
    return QueryBank(build_stored(TextRequest(name=str(path))))


def seconds_of(work: Callable[[], object], times: int) -> float:
    """Of this process on its core, whatever else the machine does: the median."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return statistics.median(found)


def copy_s(epoch_bytes: int, batch_bytes: int) -> float:
    """Bytes of an epoch out of a large array into the buffer of a batch that is there already, window by window."""
    window = NUM_CLIPS * sum(STREAMS.values()) * 2
    source = np.ones(1 << 30, np.uint8)
    target = np.ones(batch_bytes, np.uint8)

    def work() -> None:
        place, room = 0, batch_bytes // window * window
        for start in range(0, epoch_bytes - window, window):
            from_byte = start % (len(source) - window)
            target[place : place + window] = source[from_byte : from_byte + window]
            place = (place + window) % room

    return seconds_of(work, 3)


class Files:
    """Three .npz an item, and the published way to a batch of them."""

    def __init__(self, folder: Path, num_items: int) -> None:
        rng = np.random.default_rng(0)
        self.folder, self.num_items = folder, num_items
        shapes = {**{name: (NUM_CLIPS, dim) for name, dim in STREAMS.items()}, "text": (NUM_WORDS, WORD_DIM)}
        for name, shape in shapes.items():
            (folder / name).mkdir()
            for item in range(num_items):
                key = "last_hidden_state" if name == "text" else "features"
                np.savez(folder / name / f"{item}.npz", **{key: rng.standard_normal(shape).astype(np.float16)})

    def item(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for name in STREAMS:
            values = np.load(self.folder / name / f"{number}.npz")["features"][:NUM_CLIPS].astype(np.float32)
            parts.append(values / (np.linalg.norm(values, axis=-1, keepdims=True) + 1e-5))
        shortest = min(map(len, parts))
        joined = torch.from_numpy(np.concatenate([part[:shortest] for part in parts], axis=1))
        begin = torch.arange(0, shortest, 1.0) / shortest
        joined = torch.cat([joined, torch.stack([begin, begin + 1.0 / shortest], dim=1)], dim=1)
        words = np.load(self.folder / "text" / f"{number}.npz")["last_hidden_state"].astype(np.float32)
        return joined, torch.from_numpy(words / (np.linalg.norm(words, axis=-1, keepdims=True) + 1e-5))

    def batch(self, numbers: range) -> None:
        items = [self.item(number) for number in numbers]
        for side in (0, 1):
            longest = max(len(item[side]) for item in items)
            padded = torch.zeros(len(items), longest, items[0][side].shape[1])
            mask = torch.zeros(len(items), longest)
            for place, item in enumerate(items):
                padded[place, : len(item[side])] = item[side]
                mask[place, : len(item[side])] = 1

    def epoch(self, size: int) -> None:
        for start in range(0, self.num_items, size):
            self.batch(range(start, min(start + size, self.num_items)))


def measure(
    cache: Cache, annotations: list[Annotation], text: QueryBank, placement: str, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds to open, and of an epoch as it is and in float32; its bytes."""
    config = MomentDataConfig(items_per_batch=options.batch, placement=placement)  # type: ignore[arg-type]
    choices = [StreamChoice(space="slowfast"), StreamChoice(space="clip", has_endpoints=True)]
    started = time.process_time()
    streams = StreamSet.open(cache, choices, config)
    with moment_batches(streams, streams.match(annotations)[0], config, Share(seed=0), text=text) as batches:
        opened_s = time.process_time() - started
        epoch = num_bytes = 0

        def deliver(is_wide: bool) -> None:
            nonlocal epoch, num_bytes
            epoch, num_bytes = epoch + 1, 0
            batches.set_epoch(epoch)
            for batch in batches:
                num_bytes += batch.clips.nbytes
                if is_wide:
                    batch.clips.float()

        deliver(is_wide=False)  # warms
        times = 1 if placement == "streamed" else options.epochs
        ready_s = seconds_of(lambda: deliver(is_wide=False), times)
        wide_s = seconds_of(lambda: deliver(is_wide=True), times)
    return {"open_s": opened_s, "ready_s": ready_s, "float32_s": wide_s, "bytes": num_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("items", 7218), ("batch", 32), ("epochs", 5), ("files", 320)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--placements", nargs="+", default=["ram", "mapped", "streamed"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cache, annotations = make_cache(Path(folder, "cache"), options.items), make_annotations(options.items)
        text = make_words(Path(folder, "words.safetensors"), annotations)
        written_s = time.perf_counter() - started
        for placement in options.placements:
            results[placement] = measure(cache, annotations, text, placement, options)
        epoch_bytes = next(iter(results.values()))["bytes"]
        limit_s = copy_s(epoch_bytes, epoch_bytes * options.batch // options.items)
        files = Files(Path(folder), options.files)
        files.epoch(options.batch)
        files_s = seconds_of(lambda: files.epoch(options.batch), 3) * options.items / options.files
    if options.json:
        print(json.dumps({"copy_s": limit_s, "files_s": files_s, "results": results}))
        return
    print(f"an epoch: {options.items:,} items, {epoch_bytes / 1e9:.2f} GB of features (written in {written_s:.0f} s)")
    print(f"three .npz an item: {files_s:.1f} s    plain copy of the same bytes: {limit_s:.2f} s")
    for placement, found in results.items():
        print(
            f"{placement:<9} ready in {found['ready_s']:5.2f} s, {found['ready_s'] / limit_s:4.1f} copies, "
            f"{files_s / found['ready_s']:4.0f} times as fast as .npz   in float32 {found['float32_s']:5.2f} s   "
            f"opened in {found['open_s']:.1f} s"
        )


if __name__ == "__main__":
    main()
