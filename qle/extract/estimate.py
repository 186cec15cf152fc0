"""`qle extract --dry-run`: what a run would cost, from probes of the files and short measurements on this machine.

Nothing is written. Up to NUM_PROBES videos are probed and the rest is taken to be like them by file size; a few seconds of
decoding and two forward passes give the rates. Read it to within a factor of two, and for which resource binds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from qle.backbones import build_backbone
from qle.backbones.base import Backbone
from qle.backbones.preprocess import Preprocess
from qle.cache.layout import space_folder_name
from qle.cache.spaces import open_space
from qle.cache.states import states
from qle.errors import DecodeError
from qle.extract.decode.decoder import choose_decoder
from qle.extract.decode.pool import DecodePool
from qle.extract.decode.tasks import DecodeTask, Event, Failed, Frames, Probed, ProbeTask, bytes_per_row
from qle.extract.device import engine_options, needs_work
from qle.extract.engine.opening import EngineOptions
from qle.extract.plan import discover, size_bytes
from qle.extract.request import ExtractRequest
from qle.extract.sampling import decode_runs, num_decoded_frames, plan_rows
from qle.extract.target import named_as_there, space_spec
from qle.extract.tokens import to_stored
from qle.runtime import resolve_device
from qle.types import SpaceSpec, VideoInfo, VideoSource

NUM_PROBES = 24
NUM_TIMED = 3
"""Videos of which the beginning is decoded against the clock."""
TIMED_FRAMES = 250
"""Decoded frames of each of them, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is to do and what it takes."""

    num_videos: int
    num_pending: int
    num_probed: int
    unreadable: dict[str, str]
    """Key -> why, of the probed ones."""
    hours: float
    """Hours of video that are pending."""
    rows: int
    frames_decoded: int
    """Frames that the decoders go through to get the rows."""
    bytes_written: dict[str, int]
    """Space -> bytes."""
    decode_rows_per_s: float
    """With all decode processes."""
    forward_rows_per_s: float
    """Through all backbones, on all devices."""
    seconds: float
    binding: str


def estimate(request: ExtractRequest) -> Estimate:
    """Probes, measures, multiplies."""
    sources = discover(request.inputs, request.root, request.limit)
    device = resolve_device(request.devices[0])
    options = engine_options(request, device)
    backbones = [build_backbone(replace(wanted, device=str(device))) for wanted in request.backbones]
    specs = [
        named_as_there(request.cache, space_spec(backbone, request.sampling, request.tokens)) for backbone in backbones
    ]
    pending = _pending(request, specs, sources)
    probed = _probe(pending, backbones, options)
    scale = _scale(pending, probed)
    forward_s_per_row = sum(map(_forward_seconds, backbones, specs, [options.batch_frames] * len(specs)))
    rows = round(sum(probe.rows for probe in probed.values()) * scale)
    frames = round(sum(probe.frames for probe in probed.values()) * scale)
    num_devices = len(request.devices)
    decode_s = frames * _decode_seconds(probed) / (options.num_workers * num_devices)
    forward_s = rows * forward_s_per_row / num_devices
    return Estimate(
        num_videos=len(sources),
        num_pending=len(pending),
        num_probed=len(probed),
        unreadable={probe.source.key: probe.failure for probe in probed.values() if probe.failure},
        hours=sum(probe.duration_s for probe in probed.values()) * scale / 3600,
        rows=rows,
        frames_decoded=frames,
        bytes_written={
            space_folder_name(spec): rows * sum(stream.row_bytes for stream in spec.streams) for spec in specs
        },
        decode_rows_per_s=rows / decode_s if decode_s else 0.0,
        forward_rows_per_s=num_devices / forward_s_per_row,
        # On a CPU decoding and the forward pass share the cores, on a GPU they overlap.
        seconds=decode_s + forward_s if device.type == "cpu" else max(decode_s, forward_s),
        binding="decode" if decode_s > forward_s else "forward",
    )


@dataclass(slots=True)
class _FileMeasure:
    """What one file taught."""

    source: VideoSource
    duration_s: float = 0.0
    rows: int = 0
    frames: int = 0
    timed_frames: int = 0
    timed_s: float = 0.0
    failure: str = ""


def _pending(request: ExtractRequest, specs: Sequence[SpaceSpec], sources: Sequence[VideoSource]) -> list[VideoSource]:
    """What is not committed in each space; a space that does not exist yet is not made here."""
    missing: set[str] = set()
    for spec in specs:
        folder = request.cache / space_folder_name(spec)
        if not folder.exists():
            return list(sources)
        known = states(open_space(folder), sources)
        missing |= {state.key for state in known if needs_work(state, retry_failed=request.retry_failed)}
    return [source for source in sources if source.key in missing]


def _probe(
    pending: Sequence[VideoSource], backbones: Sequence[Backbone], options: EngineOptions
) -> dict[int, _FileMeasure]:
    """Probes videos spread over the list, and times the decoder on the beginning of the first few."""
    chosen = (
        [pending[i] for i in np.unique(np.linspace(0, len(pending) - 1, NUM_PROBES).astype(int))] if pending else []
    )
    geometries = tuple(dict.fromkeys(backbone.preprocess for backbone in backbones))
    probes = {tag: _FileMeasure(source) for tag, source in enumerate(chosen)}
    with DecodePool(1, frame_bytes=bytes_per_row(geometries), stall_limit_s=options.stall_limit_s) as pool:
        for tag, probe in probes.items():
            outcome = _run_task(pool, ProbeTask(tag=tag, source=probe.source))
            if isinstance(outcome, Failed):
                probe.failure = str(outcome.error).splitlines()[0]
            elif isinstance(outcome, Probed):
                _count(probe, outcome.info, options)
                if not probe.failure and sum(other.timed_s > 0 for other in probes.values()) < NUM_TIMED:
                    _time_decoder(pool, probe, outcome.info, geometries, options)
    return probes


def _count(probe: _FileMeasure, info: VideoInfo, options: EngineOptions) -> None:
    source = probe.source
    try:
        choose_decoder(info, options.decoder)
        rows = plan_rows(info.pts_s, info.end_s, info.time_base, options.sampling, source.start_s, source.end_s)
    except DecodeError as error:
        probe.failure = str(error).splitlines()[0]
        return
    probe.rows = rows.num_rows
    probe.frames = num_decoded_frames(decode_runs(rows.frame_index, info.is_key))
    end_s = info.end_s if source.end_s is None else min(source.end_s, info.end_s)
    probe.duration_s = max(0.0, end_s - max(source.start_s or info.start_s, info.start_s))


def _time_decoder(
    pool: DecodePool, probe: _FileMeasure, info: VideoInfo, geometries: tuple[Preprocess, ...], options: EngineOptions
) -> None:
    rows = plan_rows(info.pts_s, info.end_s, info.time_base, options.sampling)
    few = rows.frame_index[rows.frame_index < max(TIMED_FRAMES, rows.frame_index[0] + 1)]
    task = DecodeTask(
        tag=0, info=info, decoder=choose_decoder(info, options.decoder), rows=np.arange(len(few)), frame_index=few,
        geometries=geometries,
    )  # fmt: skip
    started_s = time.perf_counter()
    if not isinstance(_run_task(pool, task), Failed):
        probe.timed_s = time.perf_counter() - started_s
        probe.timed_frames = num_decoded_frames(decode_runs(few, info.is_key))


def _run_task(pool: DecodePool, task: ProbeTask | DecodeTask) -> Event:
    """The event that ends the task; pixels are dropped."""
    pool.submit(task)
    while True:
        for event in pool.wait(1.0):
            if not isinstance(event, Frames):
                return event
            event.release()


def _scale(pending: Sequence[VideoSource], probed: dict[int, _FileMeasure]) -> float:
    """How much more there is than what was probed, by file size."""
    seen = sum(size_bytes(probe.source) for probe in probed.values())
    return sum(map(size_bytes, pending)) / seen if seen else 1.0


def _decode_seconds(probed: dict[int, _FileMeasure]) -> float:
    frames = sum(probe.timed_frames for probe in probed.values())
    return sum(probe.timed_s for probe in probed.values()) / frames if frames else 0.0


def _forward_seconds(backbone: Backbone, spec: SpaceSpec, batch_frames: int) -> float:
    """Seconds for a stored row, from the faster of two passes after a first one. Overlapping clips pay for what they drop."""
    length, step = backbone.context.length, backbone.context.step
    num_clips = max(1, batch_frames // length)
    frames = torch.zeros((num_clips, length, *backbone.preprocess.output_shape, 3), dtype=torch.uint8)
    passes_s = []
    for _ in range(3):
        started_s = time.perf_counter()
        with torch.inference_mode():
            stored = to_stored(backbone.encode(frames), spec.streams)
        stored[spec.streams[0].name].cpu()
        passes_s.append(time.perf_counter() - started_s)
    return min(passes_s[1:]) / (num_clips * step)
