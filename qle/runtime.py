"""What this machine is and does: devices, number formats, environment. Nothing else in qle reads the environment.

torch is imported inside the functions: the command line asks this file for settings long before it needs a device.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qle.errors import ConfigError
from qle.inputs import refuse_address

if TYPE_CHECKING:
    import torch

ENVIRONMENT = {
    "QLE_CACHE": "folder of the cache where --cache is not given",
    "QLE_THREADS": "CPU threads of one command, or of one of several seeds; as many as cores are free where it is not set",
    "QLE_TENANTS": "set by qle train-heads --jobs: how many trainings share the memory of the machine",
    "RANK": "set by accelerate launch: number of the process; the first one talks and writes",
    "LOCAL_RANK": "set by accelerate launch: number of the process on its machine",
    "TORCHELASTIC_RUN_ID": "set by accelerate launch and torchrun: the process ends with the launcher that started it",
    "MASTER_PORT": "set by launchers for more than one process; without RANK, only one of them was started",
    "OMP_NUM_THREADS": "the libraries' own name for CPU threads; where it is set, qle chooses none",
    "NO_COLOR": "any value: no colours on the terminal",
    "HF_HUB_OFFLINE": "1: models come from the local hub folder only",
}
"""Every variable that qle looks at, with what it does; the documentation prints this table."""

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
"""Where Linux says how busy the cores are, and what the container of a process may use."""

SAMPLE_S = 0.2
"""Ticks of the kernel's clocks are 0.01 s long: a twentieth of a core."""

MANY = 1e6
"""More cores than there are anywhere."""

COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float16")


def environment(name: str) -> str | None:
    """The value of one of ENVIRONMENT, None where it is unset or empty."""
    if name not in ENVIRONMENT:
        raise KeyError(f"{name} is not in qle.runtime.ENVIRONMENT: add it there with what it does")
    return os.environ.get(name) or None


def cache_folder(given: Path | None) -> Path:
    """What --cache says, else $QLE_CACHE; ConfigError where neither says anything."""
    named = given if given is not None else environment("QLE_CACHE")
    if named is None:
        raise ConfigError("no cache: name its folder (--cache FOLDER) or set QLE_CACHE")
    refuse_address("QLE_CACHE" if given is None else "--cache", str(named))
    return Path(named)


def resolve_device(name: str) -> "torch.device":
    """`auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1` or `mps` as a device that exists here."""
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: choose auto, cpu, cuda, cuda:0, cuda:1, ..., mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device {name!r}: this machine has {count} CUDA devices\nrun qle doctor, or pass --device cpu"
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps': not available here\npass --device cpu")
    if device.type not in ("cpu", "mps"):
        raise ConfigError(f"device {name!r} is not supported: choose auto, cpu, cuda, cuda:1, mps")
    return device


def resolve_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """The number format of a forward pass; `auto` is the fastest one that keeps cosine > 0.999 to float32."""
    import torch

    if name not in COMPUTE_DTYPES:
        raise ConfigError(f"unknown compute dtype {name!r}: choose {', '.join(COMPUTE_DTYPES)}")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if has_fast_bfloat16() else torch.float32


def has_fast_bfloat16() -> bool:
    """The CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX); without that it is slower than float32."""
    import torch

    # Underscored in torch, so their absence must read as "no"; there is no public question for it.
    checks = (getattr(torch.cpu, "_is_avx512_bf16_supported", None), getattr(torch.cpu, "_is_amx_tile_supported", None))
    return any(check() for check in checks if check is not None)


def num_tenants() -> int:
    """How many trainings of one command share the memory of this machine."""
    return int(environment("QLE_TENANTS") or 1)


def num_threads() -> int | None:
    """How many CPU threads QLE_THREADS allows; None where it is not set."""
    wanted = environment("QLE_THREADS")
    if wanted is None:
        return None
    if not wanted.isdigit() or int(wanted) < 1:
        raise ConfigError(f"QLE_THREADS={wanted}: expected a whole number above 0")
    return int(wanted)


def num_cores() -> int:
    """CPU cores that this process may use: those it is bound to, and no more than the quota of its container, rounded up."""
    return max(1, min(len(_cores()), math.ceil(min(_quota()[0], MANY))))


def free_cores() -> int:
    """How many of `num_cores` nobody works on at this moment, at least 1. Looks on for SAMPLE_S.

    Not from the load average where it can be avoided: that looks back a minute, and would count what has just ended.
    """
    quota, group = _quota()
    idle_s, group_s, started_s = _idle_s(), _used_s(group), time.monotonic()
    time.sleep(SAMPLE_S)
    seconds = time.monotonic() - started_s
    if (later_s := _idle_s()) is not None and idle_s is not None:
        free = (later_s - idle_s) / seconds
    else:
        free = len(_cores()) - os.getloadavg()[0] if hasattr(os, "getloadavg") else MANY
    # Neighbours in the same container use up its quota however idle the machine is.
    free = min(free, quota - (_used_s(group) - group_s) / seconds, MANY)
    return max(1, min(num_cores(), round(free)))


def prepare_cpu(say: Callable[[str], None]) -> None:
    """What every command does before it trains or scores: keep freed memory, and choose how many threads compute."""
    keep_freed_memory()
    use_free_threads(say)


def use_free_threads(say: Callable[[str], None]) -> None:
    """As many of torch's threads as cores are free, chosen once in a process; fewer than there would be are said.

    Threads of a layer wait for each other: one that has to share its core holds up all, and a training slows down not by half
    but several times (benchmarks/README.md). A user who has set QLE_THREADS or OMP_NUM_THREADS, or a launcher, has chosen.
    """
    import torch

    global _has_chosen
    if (given := num_threads()) is not None:
        torch.set_num_threads(given)
    elif not _has_chosen and not are_threads_given():
        whole, free = torch.get_num_threads(), free_cores()
        if free < whole:
            torch.set_num_threads(free)
            say(f"threads: {free} of {whole}, the other cores are busy (QLE_THREADS={whole} takes them all the same)")
    _has_chosen = True


def are_threads_given() -> bool:
    """Whether somebody else has said how many threads this process computes with."""
    return any(environment(name) is not None for name in ("QLE_THREADS", "OMP_NUM_THREADS", "RANK"))


_has_chosen = False


def _cores() -> set[int]:
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _idle_s() -> float | None:
    """Seconds that the cores of this process have been idle since the machine started; None where no file tells."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    columns = {name: rest for name, *rest in map(str.split, lines) if name.startswith("cpu")}
    idle = [columns[name] for name in (f"cpu{core}" for core in _cores()) if name in columns]
    return sum(int(column) for columns in idle for column in columns[3:5]) / os.sysconf("SC_CLK_TCK")


def _quota() -> tuple[float, Path | None]:
    """Cores' worth of time that the container of this process may use, and its folder; infinite where there is no quota."""
    quotas: list[tuple[float, Path | None]] = [(math.inf, None)]
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:  # the old files say -1 where there is none, the new one "max", which is no number
                quotas.append((int(quota) / int(period), folder))
    return min(quotas, key=lambda cores_and_folder: cores_and_folder[0])


def _used_s(group: Path | None) -> float:
    """Seconds of computing that all processes of a container have used; 0 where no file tells."""
    if group is not None:
        with contextlib.suppress(OSError, ValueError):
            if (group / "cpu.max").exists():
                return int((group / "cpu.stat").read_text().split()[1]) / 1e6  # its first line is usage_usec
            return int((group / "cpuacct.usage").read_text()) / 1e9
    return 0.0


def _groups() -> list[Path]:
    """Folders of the control groups that this process is in, the innermost first. A container sees its own as the root."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            root = CGROUPS / controllers if controllers else CGROUPS
            inner = root / path.lstrip("/")
            folders += [inner, *(parent for parent in inner.parents if parent.is_relative_to(root))]
    return folders


def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed tensors for the next ones; call it before the first thread. True if done.

    A layer's output is tens of megabytes, which glibc maps and unmaps every time: the kernel then clears the same pages over
    and over, 9 to 12 % of the CPU time of a forward pass through a backbone and a quarter of a training step. Peak memory
    stays what it was. Linux with glibc only.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    # Numbers from malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX (the other arenas hold at most 64 MiB a piece).
    return all(mallopt(option, value) == 1 for option, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-8, 1)))


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM an interrupt as Ctrl-C is, and neither of them can get lost.

    Python drops an exception that a signal handler raises while a destructor runs, and the process would work on: then the
    signal is raised once more.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _raise_again


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        # Not at once: this hook still runs inside the destructor, and the exception would be dropped again.
        again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(dropped)


def is_main_process() -> bool:
    """Whether this is the only process of a command, or the first of those that a launcher has started."""
    return environment("RANK") in (None, "0")


def is_lonely() -> bool:
    """Whether a launcher was asked for several processes and has started one: `accelerate launch --cpu --num_processes 2`
    does so without mpirun, and says nothing."""
    return environment("MASTER_PORT") is not None and environment("RANK") is None


def seed_everything(seed: int) -> None:
    """The generators of Python, numpy and torch, the GPU's included. On a CPU equal seeds then give equal numbers, bit for
    bit, as long as the number of threads stays the same; some sums on GPUs add up in another order every time."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def choose_accelerate_device(device: "torch.device") -> None:
    """Tell accelerate which GPU a single process trains on: it knows no other way than the environment. Processes that
    `accelerate launch` has started are told theirs by it."""
    if device.type == "cuda" and device.index and environment("LOCAL_RANK") is None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
