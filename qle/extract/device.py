"""One device's share of a run: backbones on it, what is missing in their spaces, and an engine over the list.

Whether other processes or machines are at the same list makes no difference here: claims divide the work.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from qle.backbones import build_backbone
from qle.backbones.base import Backbone
from qle.cache.states import VideoState, states
from qle.data.loading.plan import available_ram_bytes
from qle.errors import ConfigError, InputError
from qle.extract.engine.engine import Engine
from qle.extract.engine.opening import EngineOptions
from qle.extract.engine.worklist import Pending, WorkList
from qle.extract.plan import size_bytes
from qle.extract.progress import Progress
from qle.extract.request import ExtractRequest
from qle.extract.target import Target, make_target
from qle.runtime import keep_freed_memory, num_cores, num_threads, resolve_device
from qle.types import VideoSource

OnExtracting = Callable[[Progress], None]


def run_device(
    request: ExtractRequest, sources: Sequence[VideoSource], device_name: str, on_progress: OnExtracting
) -> tuple[list[Path], Progress]:
    """One engine on one device, over the whole list; other processes may be at the same list."""
    device = resolve_device(device_name)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else pinned memory of this process takes room on the first card
    targets = make_targets(request, device)
    return [target.folder.path for target in targets], run_targets(request, sources, targets, device, on_progress)


def run_targets(
    request: ExtractRequest,
    sources: Sequence[VideoSource],
    targets: Sequence[Target],
    device: torch.device,
    on_progress: OnExtracting,
) -> Progress:
    """What is missing of the list in the spaces of these targets, extracted on their device."""
    work = WorkList(plan_pending(sources, targets, retry_failed=request.retry_failed), targets)
    # Forward lanes take one thread each, and torch hands their number on to any thread that has not computed yet: whoever
    # called, to score or train next.
    num_threads = torch.get_num_threads()
    try:
        return Engine(work, targets, engine_options(request, device), on_progress).run()
    finally:
        torch.set_num_threads(num_threads)


def make_targets(request: ExtractRequest, device: torch.device) -> list[Target]:
    """The backbones on this device, each with its space; makes the spaces that are missing."""
    backbones = [build_backbone(replace(wanted, device=str(device))) for wanted in request.backbones]
    if request.batch_frames is not None:
        check_batch(request.batch_frames, backbones)
    targets = [make_target(backbone, request.sampling, request.tokens, request.cache) for backbone in backbones]
    if len({target.folder.path for target in targets}) < len(targets):
        names = ", ".join(wanted.name for wanted in request.backbones)
        raise ConfigError(f"two of the backbones {names} are the same: name each once")
    return targets


def check_batch(num_frames: int, backbones: Sequence[Backbone]) -> None:
    """ConfigError where the frames of one batch alone are more than this machine holds: every video would fail."""
    height, width = max(
        ((backbone.preprocess.height, backbone.preprocess.width) for backbone in backbones), key=math.prod
    )
    frame_bytes, free_bytes = 3 * height * width, available_ram_bytes()
    if num_frames * frame_bytes > free_bytes:
        raise ConfigError(
            f"--batch {num_frames}: so many frames of {height} x {width} take {num_frames * frame_bytes / 1e9:,.1f} GB, "
            f"and {free_bytes / 1e9:,.1f} GB of memory are free\nleave it out, or choose some hundreds at most"
        )


def engine_options(request: ExtractRequest, device: torch.device) -> EngineOptions:
    """Defaults by the device and by its share of this machine's cores."""
    cores = max(1, num_cores() // len(request.devices))
    is_cpu = device.type == "cpu"
    return EngineOptions(
        sampling=request.sampling,
        store=request.store,
        decoder=request.decoder,
        # On a CPU decoders and lanes share the cores: whichever is ahead waits and leaves them to the other.
        num_workers=request.num_workers or (cores if is_cpu else max(1, cores - 1)),
        num_lanes=(num_threads() or cores) if is_cpu else 1,
        # A core's share of the cache holds one clip of 8 frames better than four (benchmarks/forward.py).
        batch_frames=request.batch_frames or (8 if is_cpu else 256),
        durability=request.durability,
        keep_partial=request.keep_partial,
        keep_damaged=request.keep_damaged,
        stall_limit_s=request.stall_limit_s,
    )


def needs_work(state: VideoState, *, retry_failed: bool) -> bool:
    """Whether a run takes this video on; a claim may be dead, so what is claimed is looked at again when its turn comes."""
    if state.state == "failed":
        return retry_failed or state.is_passing
    return state.state in ("pending", "claimed", "stale", "damaged")


def plan_pending(sources: Sequence[VideoSource], targets: Sequence[Target], *, retry_failed: bool) -> list[Pending]:
    """The videos that are missing somewhere, longest first, so that no long one is left for the end."""
    missing: dict[str, list[Target]] = {}
    replacing: set[str] = set()
    for target in targets:
        video_states = states(target.folder, sources)
        _refuse_other_files(target, sources, video_states)
        for state in video_states:
            if needs_work(state, retry_failed=retry_failed):
                missing.setdefault(state.key, []).append(target)
            if state.state in ("stale", "damaged"):  # something stands in the place of the new version
                replacing.add(state.key)
    todo = [
        Pending(source, tuple(missing[source.key]), source.key in replacing)
        for source in sources
        if source.key in missing
    ]
    return sorted(todo, key=lambda pending: -size_bytes(pending.source))


def _refuse_other_files(target: Target, sources: Sequence[VideoSource], video_states: Sequence[VideoState]) -> None:
    """A key whose committed video came from another file that still exists: a name clash, not a new version."""
    clashes = []
    for source, state in zip(sources, video_states, strict=True):
        if state.state == "stale" and (record := target.folder.committed(source.key)) is not None:
            old = Path(record.source.path)
            if old.is_absolute() and old.exists() and not old.samefile(source.path):
                clashes.append((source, old))
    if clashes:
        source, old = clashes[0]
        raise InputError(
            f"{len(clashes)} videos have keys that belong to other files in this cache, e.g. {source.key!r}:\n"
            f"  there: {old}\n  asked for: {source.path}\n"
            "Pass --root with a folder above both, so that their keys differ, or use another --cache."
        )
