"""A training step from the cache against the same step with the frozen backbone in it.

    python benchmarks/train_step.py [--grids 14,7] [--heads published,default] [--windows 1] [--device cpu] [--steps 4] [--json]

M2CRL-B with random weights of the real size, clips of 16 frames, one query a clip, AdamW. `published` is the head at the size
of the published code (width 768, 7.2 GFLOP a frame forward on 14x14 cells), `default` is ours. `cached` reads its batch through
the real loader (mapped files written by the real writer) and steps; `online` runs the backbone on frames that are in memory
already and then makes the same step, so decoding, which the online way also repeats, is not even counted. Both use the number
format that the backbone picks for the device. The limit is the arithmetic: (backbone + 3 x head) / (3 x head).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from forward import BASE as M2CRL_BASE
from forward import gflop_per_frame, random_weights
from torch.utils.flop_counter import FlopCounterMode

from qle.backbones import BackboneRequest, build_backbone
from qle.cache.reader import Space, open_cache
from qle.cache.records import SourceFacts
from qle.cache.spaces import create_space
from qle.cache.writer import VideoWriter
from qle.data.annotations import Annotation
from qle.data.loading.share import Share
from qle.data.lookup import match_videos
from qle.heads import build_head
from qle.heads.base import Head, TokenShapes
from qle.heads.qle.head import QleConfig, QleHead
from qle.heads.rows import RowBatch
from qle.runtime import keep_freed_memory, resolve_device, resolve_dtype
from qle.tasks.rows.batches.loader import DataConfig, training_batches
from qle.text import build_text_encoder
from qle.text.bank import QueryBank
from qle.text.request import TextRequest
from qle.types import RowPlan, SourceFingerprint, SpaceSpec, Stream

FRAMES = 16
ROWS, VIDEOS = 64, 4
SOURCE = SourceFacts(path="none", fingerprint=SourceFingerprint(size=0, mtime_ns=0, edge_hash=""))


def make_space(folder: Path, grid: int) -> tuple[Space, list[Annotation]]:
    """Videos of noise with an event in the middle of each."""
    patch = Stream(name="patch", row_shape=(grid, grid, 768), axes=("rows", "cols", "dim"), dtype="float16")
    space = create_space(folder, SpaceSpec(name=f"grid{grid}", hashed={"grid": grid}, streams=(patch,), recorded={}))
    rng = np.random.default_rng(0)
    count = np.arange(ROWS)
    plan = RowPlan(frame_index=count, pts_s=count * 1.0, is_valid=np.ones(ROWS, bool))
    for video in range(VIDEOS):
        writer = VideoWriter.open(space, f"{video}.mp4", plan, SOURCE, durability="none")
        writer.write("patch", count, rng.standard_normal((ROWS, *patch.row_shape), dtype=np.float32).astype(np.float16))
        writer.commit()
    annotations = [
        Annotation(qid=str(video), video=f"{video}.mp4", query="the hook dissects", windows=((20.0, 40.0),))
        for video in range(VIDEOS)
    ]
    return open_cache(folder).space(f"grid{grid}"), annotations


def make_head(kind: str, grid: int, text_dim: int) -> Head:
    shapes = TokenShapes(streams={"patch": (grid, grid, 768)}, text_dim=text_dim, sentence_dim=text_dim)
    if kind == "published":
        return QleHead(QleConfig.published(hidden=3072), shapes)
    return build_head("qle", {}, shapes)


class Trainer:
    """A head, its optimiser, and what turns a batch into a step."""

    def __init__(self, head: Head, bank: QueryBank, device: torch.device, dtype: torch.dtype) -> None:
        self.head, self._bank, self._device, self._dtype = head.to(device).train(), bank, device, dtype
        self._optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4, fused=True)

    def step(self, batch: RowBatch) -> None:
        batch = batch.to(self._device).with_words(self._bank.encode(batch.queries))
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            output = self.head(batch)
        self.head.loss(output, batch).total.backward()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)


def seconds_a_step(step: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Of the fastest step: the others were disturbed."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def measure(kind: str, grid: int, arguments: argparse.Namespace, folder: Path, weights: Path) -> dict[str, object]:
    device = resolve_device(arguments.device)
    dtype = resolve_dtype("auto", device)
    space, annotations = make_space(folder / f"cache-{kind}-{grid}", grid)
    bank = QueryBank(build_text_encoder(TextRequest(name="tiny"), device).requires_grad_(requires_grad=False))
    head = make_head(kind, grid, bank.encoder.dim)
    trainer = Trainer(head, bank, device, dtype)
    config = DataConfig(
        window_rows=FRAMES, windows_per_batch=arguments.windows, queries_per_window=1, placement="mapped"
    )
    with training_batches(
        space, match_videos(space, annotations)[0], config, Share(seed=0, device=device), streams=("patch",)
    ) as batches:
        batch = next(iter(batches))
        head_gflop = _gflop(lambda: head(batch.to(device).with_words(bank.encode(batch.queries))))
        started, waited, count = time.perf_counter(), batches.wait_s, 0
        for epoch in range(arguments.steps):
            batches.set_epoch(epoch + 1)
            for each in batches:
                trainer.step(each)
                count += 1
        wait_share = (batches.wait_s - waited) / (time.perf_counter() - started)
    cached_s = seconds_a_step(lambda: trainer.step(batch), device, 3 * arguments.steps)
    request = BackboneRequest(name="m2crl", weights=weights, context="tile", device=str(device))
    backbone = build_backbone(request)
    frames = torch.randint(0, 255, (arguments.windows * FRAMES // 8, 8, 224, 224, 3), dtype=torch.uint8)

    def online() -> None:
        tokens = backbone.encode(frames)["patch"].flatten(0, 1)
        if grid != tokens.shape[1]:
            tokens = F.adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1)
        fresh = tokens.unflatten(0, (arguments.windows, FRAMES)).clone()
        trainer.step(RowBatch(**{**_fields(batch), "streams": {"patch": fresh}}))

    online_s = seconds_a_step(online, device, arguments.steps)
    backbone_gflop = gflop_per_frame(M2CRL_BASE) * arguments.windows * FRAMES
    return {
        "head": kind,
        "grid": grid,
        "dtype": str(dtype).removeprefix("torch."),
        "cached_s": round(cached_s, 4),
        "online_s": round(online_s, 4),
        "ratio": round(online_s / cached_s, 2),
        "arithmetic_ratio": round((backbone_gflop + 3 * head_gflop) / (3 * head_gflop), 2),
        "loader_wait": round(wait_share, 4),
        "steps": count,
    }


def _fields(batch: RowBatch) -> dict[str, object]:
    return {name: getattr(batch, name) for name in asdict(batch)}


def _gflop(call: Callable[[], object]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", default="14,7")
    parser.add_argument("--heads", default="published,default")
    parser.add_argument("--windows", type=int, default=1, help="clips of 16 frames in a batch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        weights = random_weights(Path(name))
        lines = [
            measure(kind, int(grid), arguments, Path(name), weights)
            for kind in arguments.heads.split(",")
            for grid in arguments.grids.split(",")
        ]
    for line in lines:
        print(json.dumps(line) if arguments.json else "  ".join(f"{key} {value}" for key, value in line.items()))


if __name__ == "__main__":
    main()
