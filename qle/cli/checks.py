"""What this machine has for qle, one line a thing, and a fix wherever it falls short: `qle doctor`.

Things are tried rather than asked for: a clip is encoded and decoded, numbers are multiplied, files are renamed, synced,
mapped and leased in a temp folder on the file system of the cache. Nothing is left behind. Takes a few seconds, most of
them for importing torch.
"""

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from qle.cache.tools.trials import nearest_folder, try_filesystem
from qle.cache.windows import MAX_MAPS, max_maps
from qle.errors import QleError
from qle.runtime import environment, free_cores, has_fast_bfloat16, num_cores

MIN_FREE_BYTES = 20e9
"""Eighteen hours of 196x768 float16 at one frame a second."""
MIN_SHARED_BYTES = 512e6
MIN_MAPS = 65530
"""Linux's own default for vm.max_map_count."""

_SHOWN = ("torch", "transformers", "numpy", "zarr", "h5py", "av")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""
    """What to do; empty where nothing is to be done."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What `found` says, in parts for programs; empty for most."""


def checks(cache: Path | None = None, backbone: str | None = None) -> list[Check]:
    """Everything, in the order in which a newcomer would ask. `cache`: also try its file system; default $QLE_CACHE.

    `backbone`, a name, the id of a model, a folder or a checkpoint file: only whether this one will work, and the cache if named.
    """
    if backbone is not None:
        return [*_packages(), *_backbone(backbone), *(() if cache is None else _disk(cache, is_cache=True))]
    if cache is None and (named := environment("QLE_CACHE")) is not None:
        cache = Path(named)
    return [
        *_packages(),
        *_devices(),
        *_decoders(),
        *_weights(),
        *_disk(cache or Path(), is_cache=cache is not None),
        *_limits(),
    ]


def _packages() -> Iterator[Check]:
    is_old = sys.version_info < (3, 11)
    yield Check(
        name="python",
        status="fail" if is_old else "ok",
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        fix="install Python 3.11 or newer" if is_old else "",
    )
    names = _required()
    missing = [name for name in names if _version(name) is None]
    known = ", ".join(f"{name} {_version(name)}" for name in _SHOWN if _version(name))
    yield Check(
        name="packages",
        status="fail" if missing else "ok",
        found=f"{known}; " + (f"missing: {', '.join(missing)}" if missing else f"all {len(names)} needed are there"),
        fix=f"pip install {' '.join(missing)}" if missing else "",
    )


def _required() -> list[str]:
    """Names of the packages that qle says it needs on this platform."""
    try:
        lines = requires("qle") or []
    except PackageNotFoundError:  # run from a source tree that was never installed
        return list(_SHOWN)
    needed = [line for line in lines if "extra ==" not in line]
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        needed = [line for line in needed if "platform_" not in line]
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in needed]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _backbone(asked: str) -> Iterator[Check]:
    from qle.backbones.trial import as_request, missing_files, try_backbone

    request = as_request(asked)
    is_folder = Path(asked).is_dir()
    if is_folder and (missing := missing_files(Path(asked))):
        yield Check(
            name="backbone files",
            status="fail",
            found=f"{asked} lacks {', '.join(missing)}",
            fix="fetch the whole model again; a folder that holds others must be named down to the model itself",
            facts={"missing": missing},
        )
        return
    try:
        trial = try_backbone(request)
    except QleError as error:
        reason, _, fix = str(error).partition("\n")
        yield Check(name="backbone", status="fail", found=reason, fix=fix or "name another backbone, or another device")
        return
    how = f"--backbone {request.name}" + (f" --weights {request.weights}" if request.weights else "")
    streams = {stream.name: list(stream.row_shape) for stream in trial.streams}
    shapes = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in streams.items())
    height, width = trial.picture
    yield Check(name="backbone", status="ok", found=f"{trial.name} loaded in {trial.load_s:.1f} s; use it with: {how}")
    yield Check(
        name="backbone streams",
        status="ok",
        found=f"{shapes} (a row, before --grid)",
        facts={"streams": streams},
    )
    frames = f"{trial.context.length} frame{'s' if trial.context.length > 1 else ''} of {height} x {width}"
    yield Check(
        name="backbone forward",
        status="ok",
        found=f"{frames} ({trial.context.mode}) in {trial.forward_s:.2f} s on {trial.device}, {trial.compute_dtype}",
        facts={"height": height, "width": width, "context": trial.context.mode, "frames": trial.context.length},
    )


def _devices() -> Iterator[Check]:
    import torch

    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        with torch.cuda.device(number):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Check(
            name=f"cuda:{number}",
            status="ok",
            found=f"{properties.name}, {_gigabytes(properties.total_memory)}, "
            + ("bfloat16" if has_bfloat16 else "no bfloat16: float16 is used"),
        )
    if not torch.cuda.is_available():
        has_card = Path("/proc/driver/nvidia/version").exists()
        yield Check(
            name="cuda",
            status="warn" if has_card else "ok",
            found="a driver is there, but torch sees no device" if has_card else "none: the CPU is used",
            fix=f"install a torch built for CUDA (this one: {torch.__version__})" if has_card else "",
        )
    yield _cpu()


def _cpu() -> Check:
    import torch

    names = ("avx2", "avx512", "avx512_bf16", "amx_tile")  # underscored in torch: their absence must read as "no"
    extensions = [name for name in names if getattr(torch.cpu, f"_is_{name}_supported", lambda: False)()]
    ratio = _bfloat16_speed()
    is_slow_choice = has_fast_bfloat16() and ratio < 1
    return Check(
        name="cpu",
        status="warn" if is_slow_choice else "ok",
        found=f"{num_cores()} cores, {free_cores()} to be had now, "
        f"{', '.join(extensions) or 'no vector extensions'}; bfloat16 multiplies {ratio:.1f} x as fast as float32",
        fix="pass --compute-dtype float32: bfloat16 is slower here though the processor has it"
        if is_slow_choice
        else "",
    )


def _bfloat16_speed(size: int = 768) -> float:
    """How much faster a product of two matrices is; best of a few, since other programs run too."""
    import torch

    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=dtype)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - start)
        seconds.append(best)
    return seconds[0] / seconds[1]


def _decoders() -> Iterator[Check]:
    try:
        from qle.extract.decode.doctor import decoder_facts
    except ImportError as error:
        yield Check(name="decoder pyav", status="fail", found=f"not installed ({error})", fix="pip install av")
        return
    facts = decoder_facts()
    for name, problem in facts.problems.items():
        yield Check(
            name=f"decoder {name}",
            status="fail" if problem else "ok",
            found=problem or f"{facts.pyav}, FFmpeg {facts.ffmpeg}; gives the frames of a test clip",
            fix="pip install --force-reinstall av" if problem else "",
        )
    missing = facts.missing_codecs
    yield Check(
        name="codecs",
        status="warn" if missing else "ok",
        found=f"cannot decode {', '.join(missing)}" if missing else "h264, hevc, av1, vp8, vp9, mpeg2, mpeg4",
        fix="install the official wheel: pip install --force-reinstall --only-binary av av" if missing else "",
    )


def _weights() -> Iterator[Check]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    is_offline = bool(constants.HF_HUB_OFFLINE)
    models = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    writable = nearest_folder(folder)
    is_writable = os.access(writable, os.W_OK)
    fix = ""
    if not is_writable and not is_offline:
        fix = "set HF_HOME to a folder that you may write to, or HF_HUB_OFFLINE=1"
    elif is_offline and not models:
        fix = "offline and nothing is there: pass a local folder to --backbone, or unset HF_HUB_OFFLINE to download"
    yield Check(
        name="weights",
        status="warn" if fix else "ok",
        found=f"{folder}: {models} models, {'' if is_writable else 'not '}writable, "
        f"{_gigabytes(shutil.disk_usage(writable).free)} free, {'offline' if is_offline else 'online'}",
        fix=fix,
    )


def _disk(folder: Path, *, is_cache: bool) -> Iterator[Check]:
    usage = shutil.disk_usage(nearest_folder(folder))
    is_low = usage.free < MIN_FREE_BYTES
    yield Check(
        name="disk",
        status="warn" if is_low else "ok",
        found=f"{_gigabytes(usage.free)} of {_gigabytes(usage.total)} free at {folder.absolute()}",
        fix="tokens take about 1.1 GB for an hour at 1 fps: use --grid 7, --dtype int8 or another disk"
        if is_low
        else "",
    )
    if not is_cache:
        yield Check(name="file system", status="ok", found="not tried: pass --cache FOLDER to try the one of a cache")
        return
    for trial in try_filesystem(folder):
        yield Check(
            name=f"file system: {trial.name}",
            status="ok" if not trial.problem else "fail" if trial.is_fatal else "warn",
            found=trial.problem or "works",
            fix=trial.consequence if trial.problem else "",
        )


def _limits() -> Iterable[Check]:
    num_maps = max_maps()
    yield Check(
        name="open files",
        status="ok" if num_maps >= MAX_MAPS else "warn",
        found=f"{num_maps} files may be mapped at a time",
        fix="" if num_maps >= MAX_MAPS else f"ulimit -n {2 * MAX_MAPS}: with fewer, files are mapped again and again",
    )
    count = Path("/proc/sys/vm/max_map_count")
    if count.exists():
        maps = int(count.read_text())
        yield Check(
            name="memory maps",
            status="ok" if maps >= MIN_MAPS else "warn",
            found=f"vm.max_map_count {maps}",
            fix="" if maps >= MIN_MAPS else f"sysctl vm.max_map_count={MIN_MAPS}",
        )
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        yield Check(
            name="shared memory",
            status="ok" if free >= MIN_SHARED_BYTES else "warn",
            found=f"{_gigabytes(free)} free at {shared}",
            fix="" if free >= MIN_SHARED_BYTES else "in a container: --shm-size=2g; decoded frames pass through it",
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
