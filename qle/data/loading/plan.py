"""Where the tokens lie during training: the fastest place that holds them, with the reason in words. No torch.

    device     packed in the memory of the accelerator; a batch is an index_select there
    ram        packed in one array of this process; as fast as memory, and nothing can push it out of the page cache
    mapped     the files of the cache, which the kernel keeps in its page cache; shared by all processes of the machine
    streamed   the same files read by processes of their own, when memory does not hold them and every epoch reads the disk

Packing reads everything once before the first step, and costs memory in each process: `ram` is for small sets. In float16 a
day of 14x14 maps at 1 row a second is 26 GB, of 7x7 maps 6.5 GB.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qle.errors import ConfigError

PlacementName = Literal["auto", "device", "ram", "mapped", "streamed"]
"""A place, or `auto`: the fastest that holds the working set."""

DEVICE_SHARE = 0.5
"""Share of the device's free memory that tokens may take: weights, activations and optimiser need the rest."""
RAM_SHARE = 0.25
"""Share of the available memory that tokens may take: the page cache may hold the files as well."""
MAPPED_SHARE = 0.8
ADVICE = "use data.placement=auto, a lower data.rate_fps, or a smaller map: qle cache convert --grid 7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the working set lies, and why there."""

    name: PlacementName
    size_bytes: int
    """Bytes of the chosen rows of all videos, as stored."""
    reason: str


def choose_placement(
    wanted: PlacementName,
    size_bytes: int,
    *,
    ram_bytes: int,
    device_bytes: int | None,
    num_processes: int = 1,
    advice: str = ADVICE,
) -> Placement:
    """The placement for a working set.

    ram_bytes: memory that is available now. device_bytes: free memory of the accelerator, None where training runs on the CPU.
    num_processes: of this training, taken to be on one machine. advice: what makes the set smaller.
    ConfigError where a placement is wanted that cannot hold the set.
    """
    size = f"{size_bytes / 1e9:.2f} GB"
    packed_bytes = size_bytes * num_processes
    if wanted in ("device", "ram"):
        limit = ram_bytes if wanted == "ram" or device_bytes is None else device_bytes
        needed = packed_bytes if limit is ram_bytes else size_bytes
        if needed > limit:
            raise ConfigError(
                f"data.placement = {wanted!r}: the tokens take {needed / 1e9:.2f} GB, {limit / 1e9:.2f} GB are free\n"
                f"{advice}"
            )
    if wanted != "auto":
        return Placement(name=wanted, size_bytes=size_bytes, reason=f"{size}, as asked for")
    free = f"{ram_bytes / 1e9:.1f} GB of memory"
    if device_bytes is not None and size_bytes <= DEVICE_SHARE * device_bytes:
        reason = f"{size} fit into half of the {device_bytes / 1e9:.1f} GB that are free on the device"
        return Placement(name="device", size_bytes=size_bytes, reason=reason)
    if packed_bytes <= RAM_SHARE * ram_bytes:
        times = f" in each of {num_processes} processes" if num_processes > 1 else ""
        return Placement(name="ram", size_bytes=size_bytes, reason=f"{size}{times} fit into a quarter of {free}")
    if size_bytes <= MAPPED_SHARE * ram_bytes:
        reason = f"{size} are too much to pack, but stay in the page cache of {free}"
        return Placement(name="mapped", size_bytes=size_bytes, reason=reason)
    return Placement(name="streamed", size_bytes=size_bytes, reason=f"{size} are more than {free} hold")


def available_ram_bytes(num_tenants: int = 1) -> int:
    """Memory that could be used now, page cache included; in a container what its limit leaves. Of several trainings that
    begin at the same time, each has its part."""
    free = _meminfo("MemAvailable")
    if free is None:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        free = max(0, min(free, limit - used + (_file_cache() or 0)))
    return free // num_tenants


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = [line.split() for line in lines if line.startswith(name + ":")]
    return int(values[0][1]) * 1024 if values else None


def _number(path: str) -> int | None:
    """A control group's number; None where there is none ("max", another system)."""
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _file_cache() -> int | None:
    """Bytes that count as used by the control group and would be given up first."""
    try:
        lines = Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("inactive_file ")]
    return int(values[0]) if values else None
