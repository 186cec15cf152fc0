"""Devices, number formats, seeds and the environment."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qle import runtime
from qle.errors import ConfigError
from qle.runtime import (
    cache_folder,
    environment,
    free_cores,
    has_fast_bfloat16,
    num_cores,
    num_threads,
    prepare_cpu,
    resolve_device,
    resolve_dtype,
    use_free_threads,
)


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:77", "meta", "cpu:x"):
        with pytest.raises(ConfigError, match=r"device"):
            resolve_device(name)


def test_auto_takes_the_fast_format_of_the_device() -> None:
    expected = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    assert resolve_dtype("auto", torch.device("cpu")) == expected
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(ConfigError, match="auto, float32, bfloat16, float16"):
        resolve_dtype("int8", torch.device("cpu"))


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLE_THREADS", "3")
    assert num_threads() == 3
    monkeypatch.setenv("QLE_THREADS", "")
    assert num_threads() is None
    for wrong in ("many", "0", "-1"):
        monkeypatch.setenv("QLE_THREADS", wrong)
        with pytest.raises(ConfigError, match="QLE_THREADS"):
            num_threads()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """A machine of eight cores whose files the test writes: how many of them idle, and what the container may use and uses."""
    monkeypatch.setattr(runtime, "_cores", lambda: set(range(8)))
    monkeypatch.setattr(runtime, "PROC", tmp_path / "proc")
    monkeypatch.setattr(runtime, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)

    def describe(*, idle: float, files: dict[str, str] | None = None, used: dict[str, str] | None = None) -> None:
        """`used`: what some of the files say a second later."""
        clock = SimpleNamespace(now=0.0)

        def write(told: dict[str, str]) -> None:
            ticks = int(idle / 8 * clock.now * 100)
            stat = [f"cpu{core} 10 0 10 {ticks} 0 0 0 0 0 0" for core in range(16)]
            (tmp_path / "proc" / "stat").write_text("\n".join(["cpu 1 2 3 4 5", *stat, "intr 5"]))
            for name, text in told.items():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text)

        def sleep(seconds: float) -> None:
            clock.now += 1.0
            write(used or {})

        monkeypatch.setattr(runtime, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock.now))
        write(files or {})

    return describe


NEW_GROUP = {
    "proc/self/cgroup": "0::/job",
    "cgroup/job/cpu.max": "300000 100000",
    "cgroup/job/cpu.stat": "usage_usec 0\nuser_usec 0",
}
OLD_GROUP = {
    "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/outside/of/the/container",
    "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
    "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    "cgroup/cpu,cpuacct/cpuacct.usage": "0",
}
NO_QUOTA = {"proc/self/cgroup": "0::/job", "cgroup/job/cpu.max": "max 100000"}


@pytest.mark.parametrize(("idle", "files", "used", "cores", "free"), [
    (8, {}, {}, 8, 8),
    (5.3, {}, {}, 8, 5),
    (0, {}, {}, 8, 1),  # whoever comes has a share all the same
    (8, NO_QUOTA, {}, 8, 8),
    (8, NEW_GROUP, {}, 3, 3),
    (8, NEW_GROUP, {"cgroup/job/cpu.stat": "usage_usec 1900000\nuser_usec 0"}, 3, 1),  # a neighbour in the container
    (8, OLD_GROUP, {}, 3, 2),
    (8, OLD_GROUP, {"cgroup/cpu,cpuacct/cpuacct.usage": "1000000000"}, 3, 2),
])  # fmt: skip
def test_free_cores_are_idle_and_within_the_quota(machine, idle, files, used, cores, free) -> None:
    machine(idle=idle, files=files, used=used)
    assert (num_cores(), free_cores()) == (cores, free)


@pytest.mark.slow
def test_cores_that_others_use_are_seen() -> None:
    """Real ones. On a machine with one core, or where all are busy anyway, one is what remains."""
    spin = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(num_cores())]
    try:
        assert free_cores() <= max(1, num_cores() // 2)
    finally:
        for process in spin:
            process.kill()
            process.wait()


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(runtime, "_has_chosen", False)
    for name in ("QLE_THREADS", "OMP_NUM_THREADS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_as_many_threads_as_cores_are_free_are_chosen_once_and_said(machine) -> None:
    said: list[str] = []
    machine(idle=2)
    use_free_threads(said.append)
    assert torch.get_num_threads() == 2
    machine(idle=1)
    use_free_threads(said.append)  # the next stage of the same command
    assert torch.get_num_threads() == 2
    assert said == ["threads: 2 of 4, the other cores are busy (QLE_THREADS=4 takes them all the same)"]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("given", "threads"), [
    ({}, 4), ({"OMP_NUM_THREADS": "4"}, 4), ({"QLE_THREADS": "3"}, 3), ({"RANK": "0"}, 4),
])  # fmt: skip
def test_who_has_said_how_many_threads_gets_them(machine, monkeypatch, given: dict[str, str], threads: int) -> None:
    """And where all cores are free nothing changes and nothing is said."""
    machine(idle=0 if given else 8)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    use_free_threads(said.append)
    assert (torch.get_num_threads(), said) == (threads, [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux is told")
def test_what_trains_or_scores_gets_freed_memory_again_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a training step went into clearing pages that had been ours a moment before."""
    resource = pytest.importorskip("resource")
    monkeypatch.setenv("QLE_THREADS", str(torch.get_num_threads()))
    prepare_cpu(pytest.fail)
    if not runtime.keep_freed_memory():
        pytest.skip("not glibc")
    for _ in range(12):  # the heap grows to what is needed
        torch.ones(8 << 20)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(4):
        torch.ones(8 << 20)  # 8192 pages
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 8192


def test_only_listed_variables_are_read() -> None:
    with pytest.raises(KeyError):
        environment("HOME")


IN_A_DESTRUCTOR = """
import os, signal, sys
from qle.runtime import interrupt_on_sigterm
interrupt_on_sigterm()
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10_000))
try:
    Dying()
    while True:
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
def test_an_interrupt_inside_a_destructor_is_not_lost() -> None:
    """Python drops it there; once a device process worked on to the end of its list, and its parent waited."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_DESTRUCTOR], capture_output=True, text=True, timeout=600, check=True
    )
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_the_cache_is_named_or_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QLE_CACHE", raising=False)
    with pytest.raises(ConfigError, match="--cache FOLDER"):
        cache_folder(None)
    monkeypatch.setenv("QLE_CACHE", "there")
    assert (cache_folder(None), cache_folder(Path("here"))) == (Path("there"), Path("here"))
