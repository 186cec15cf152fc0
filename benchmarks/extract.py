"""How fast `qle extract` goes, beside what the CPU costs of its two halves allow on these cores.

    python benchmarks/extract.py [--backbone tiny|m2crl] [--seconds 20] [--videos 4] [--workers N] [--device auto] [--json]

Videos of 1280x720 at 25 fps are made, every frame is a row. In one run, and twice each: the decode processes alone (CPU
seconds a row, geometry included), the bare forward pass alone (seconds a row on all cores, or on the GPU), and the engine
from the first probe to the last commit. On a CPU both halves share the cores, so the limit is cores / (decode + forward) in
CPU seconds; on a GPU they overlap, and the limit is the smaller of the two rates. m2crl has random weights of the real size.
Disk: the videos and their tokens (301 kB a row for m2crl) in a temporary folder.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from forward import random_weights

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.base import Backbone
from qle.extract.decode.pool import DecodePool
from qle.extract.decode.probe import probe
from qle.extract.decode.tasks import DecodeTask, Finished, Frames, bytes_per_row
from qle.extract.decode.write import write_video
from qle.extract.device import engine_options, make_targets, plan_pending
from qle.extract.engine.engine import Engine
from qle.extract.engine.worklist import WorkList
from qle.extract.plan import discover
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.tokens import to_stored
from qle.runtime import keep_freed_memory, resolve_device


def make_videos(folder: Path, num_videos: int, seconds: float) -> None:
    """Texture that moves, with a little noise: neither a still picture nor pure noise, which no codec is made for."""
    for number in range(num_videos):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 255, (60, 100, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
        noise = rng.integers(0, 12, (720, 1280, 3), dtype=np.uint8)
        shifts = [
            (round(80 + 70 * np.sin(i / 20)), round(100 + 90 * np.cos(i / 31))) for i in range(round(seconds * 25))
        ]
        frames = (coarse[y : y + 720, x : x + 1280] // 2 + np.roll(noise, i, axis=1) for i, (y, x) in enumerate(shifts))
        write_video(folder / f"{number}.mp4", frames, 25)


def decode_cost(videos: list[Path], backbone: Backbone, num_workers: int) -> tuple[float, float]:
    """(CPU seconds a row, rows a second) of the decode processes, probes included, with nothing else to do."""
    geometries = (backbone.preprocess,)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s, num_rows = time.perf_counter(), 0
    with DecodePool(num_workers, frame_bytes=bytes_per_row(geometries)) as pool:
        infos = [probe(path) for path in videos]
        tasks = [
            DecodeTask(
                tag=tag, info=info, decoder="pyav", rows=np.arange(info.num_frames), frame_index=np.arange(info.num_frames),
                geometries=geometries,
            )
            for tag, info in enumerate(infos)
        ]  # fmt: skip
        left = len(tasks)
        while left:
            while pool.num_idle and tasks:
                pool.submit(tasks.pop())
            for event in pool.wait(1.0):
                left -= isinstance(event, Finished)
                if isinstance(event, Frames):
                    num_rows += len(event.rows)
                    event.release()
        wall_s = time.perf_counter() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s / num_rows, num_rows / wall_s


def forward_rate(backbone: Backbone, streams: tuple, num_lanes: int, batch_frames: int, seconds: float = 8.0) -> float:
    """Rows a second of the bare pass with the stored conversion, on all cores or the device. Kept rows count, not frames."""
    length, step = backbone.context.length, backbone.context.step
    num_clips = max(1, batch_frames // length)
    frames = torch.randint(0, 255, (num_clips, length, *backbone.preprocess.output_shape, 3), dtype=torch.uint8)
    counts = [0] * num_lanes

    def work(lane: int, until_s: float) -> None:
        if num_lanes > 1:
            torch.set_num_threads(1)
        with torch.inference_mode():
            while time.perf_counter() < until_s:
                {name: value.cpu() for name, value in to_stored(backbone.encode(frames), streams).items()}
                counts[lane] += num_clips * step

    for warm_s in (0.0001, seconds):
        counts[:] = [0] * num_lanes
        started_s = time.perf_counter()
        threads = [threading.Thread(target=work, args=(lane, started_s + warm_s)) for lane in range(num_lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts) / (time.perf_counter() - started_s)


def engine_rate(request: ExtractRequest) -> float:
    """Rows a second from the first probe to the last commit."""
    device = resolve_device(request.devices[0])
    targets = make_targets(request, device)
    sources = discover(request.inputs)
    work = WorkList(plan_pending(sources, targets, retry_failed=request.retry_failed), targets)
    started_s = time.perf_counter()
    progress = Engine(work, targets, engine_options(request, device), lambda progress: None).run()
    return progress.rows_done / (time.perf_counter() - started_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tiny", choices=("tiny", "m2crl"))
    parser.add_argument("--seconds", type=float, help="of each video; default 20 for tiny, 1.6 for m2crl")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--workers", type=int, help="decode processes; default as qle extract chooses")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds = options.seconds or (20 if options.backbone == "tiny" else 1.6)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "videos").mkdir()
        make_videos(folder / "videos", options.videos, seconds)
        weights = random_weights(folder) if options.backbone == "m2crl" else None
        wanted = BackboneRequest(name=options.backbone, weights=weights)
        request = ExtractRequest(
            inputs=(str(folder / "videos"),), cache=folder / "cache", backbones=(wanted,), sampling=Sampling(mode="native"),
            tokens=TokenOptions(), devices=(options.device,), num_workers=options.workers,
        )  # fmt: skip
        print(
            json.dumps(result) if (result := run(request, folder, options.repeats)) and options.json else table(result)
        )


def run(request: ExtractRequest, folder: Path, repeats: int) -> dict[str, object]:
    device = resolve_device(request.devices[0])
    if device.type == "cpu":
        keep_freed_memory()
    chosen = engine_options(request, device)
    backbone = build_backbone(request.backbones[0])
    targets = make_targets(request, device)
    cores = len(os.sched_getaffinity(0))
    decode, forward, engine = [], [], []
    for _ in range(repeats):
        decode.append(decode_cost(sorted((folder / "videos").iterdir()), backbone, chosen.num_workers))
        forward.append(forward_rate(backbone, targets[0].streams, chosen.num_lanes, chosen.batch_frames))
        engine.append(engine_rate(request))
        shutil.rmtree(folder / "cache")
    decode_cpu_s = min(cost for cost, _ in decode)
    best_forward = max(forward)
    shared = cores / (decode_cpu_s + cores / best_forward)
    limit = shared if device.type == "cpu" else min(best_forward, max(rate for _, rate in decode))
    return {
        "backbone": backbone.name, "device": str(device), "dtype": str(backbone.compute_dtype), "workers": chosen.num_workers,
        "lanes": chosen.num_lanes, "decode_cpu_ms_a_row": round(decode_cpu_s * 1e3, 3),
        "decode_rows_s": round(max(rate for _, rate in decode), 1), "forward_rows_s": round(best_forward, 2),
        "limit_rows_s": round(limit, 2), "engine_rows_s": round(max(engine), 2), "ratio": round(max(engine) / limit, 3),
    }  # fmt: skip


def table(result: dict[str, object]) -> str:
    return "\n".join(f"{name:20} {value}" for name, value in result.items())


if __name__ == "__main__":
    main()
