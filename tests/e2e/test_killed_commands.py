"""kill -9 of a command: every process that it started, at any depth, is gone within moments, and nothing of theirs is left.

Processes are counted by a mark in their environment, which all of them inherit, whoever started them and whatever became of that
one. `make test` kills a few commands once they work; `make test-faults` kills all of them, and at random moments too.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from tests.conftest import CHECKOUT
from tests.planted import Planted, planted_cache

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

LIMIT_S = 5.0
"""For all to be gone. Two seconds are promised (docs/reliability.md); a busy machine wakes those who watch later than that."""
NUM_KILLS = 5
"""Of each command in the long table."""
MARK = "MARK_OF_TEST"

ENDLESS = ("train.steps=1000000", "train.eval_every=1000000", "data.windows_per_batch=2")
STREAMED = (*ENDLESS, "data.placement=streamed", "data.num_workers=2")

EXTRACT = ("extract", "LONG", "--cache", "OUT", "--backbone", "tiny", "--fps", "native")
COMMANDS = {
    "prepare": (("prepare", "synthetic", "OUT", "--train", 400, "--seconds", 20), 3),
    "demo": (("demo", "OUT", "--videos", 400), 3),
    "extract": ((*EXTRACT, "--device", "cpu", "--workers", 2), 3),
    "two devices": ((*EXTRACT, "--device", "cpu,cpu", "--workers", 1), 5),
    "streamed": (("train-heads", STREAMED), 3),
    "two seeds": (("train-heads", ENDLESS, "--seeds", 2, "--jobs", 2), 3),
    "two processes": (("train-heads", ENDLESS), 3),
}
"""Name -> words of the command, and how many processes it is when all work."""
OFTEN = ("prepare", "two devices", "two seeds")
"""Those that `make test` kills: one for each place in which processes are started."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_cache(tmp_path_factory.mktemp("planted"))


class MarkedCommand:
    """A command whose processes can be told from all others."""

    def __init__(self, line: list[str]) -> None:
        self._mark = f"{MARK}={uuid4()}".encode()
        name, _, value = self._mark.decode().partition("=")
        env = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", name: value}
        self._shared_memory = set(os.listdir("/dev/shm"))
        self._process = subprocess.Popen(
            line, cwd=CHECKOUT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait_for(self, num_processes: int, folder: Path | None = None) -> None:
        """Until so many of its processes are there, and the folder that they work in."""
        while len(list(self.processes())) < num_processes or (folder is not None and not folder.exists()):
            assert self._process.poll() is None, "it ended before it had begun"
            time.sleep(0.02)

    def processes(self) -> Iterator[int]:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name)
                except OSError:
                    continue

    def kill(self) -> float:
        """Seconds until all were gone; those of a command that failed to end are killed, too, and count as inf."""
        self._process.kill()
        self._process.wait()
        start_s = time.monotonic()
        while (left := list(self.processes())) and time.monotonic() - start_s < LIMIT_S:
            time.sleep(0.02)
        seconds = time.monotonic() - start_s
        for pid in left:
            os.kill(pid, 9)
        return float("inf") if left else seconds

    @property
    def left_memory(self) -> set[str]:
        """Names in shared memory that were not there before."""
        return set(os.listdir("/dev/shm")) - self._shared_memory


def begun_folder(name: str, out: Path) -> Path | None:
    """A process of a launcher can only watch it once it runs itself, which is told by its folder."""
    return out if name == "two processes" else None


def line_of(name: str, planted: Planted, videos: Path, out: Path) -> list[str]:
    words = COMMANDS[name][0]
    names = {"OUT": out, "LONG": videos}
    start = [sys.executable, "-m", "qle"]
    if name == "two processes":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "qle"]
    if words[0] == "train-heads":
        more = [str(word) for word in words[2:]]
        return [*start, "train-heads", *planted.arguments(out, *words[1]), "--track", "none", *more]
    return [*start, *(str(names.get(word, word)) for word in words)]


@pytest.mark.parametrize("name", [
    name if name in OFTEN else pytest.param(name, marks=pytest.mark.faults) for name in COMMANDS
])  # fmt: skip
def test_whoever_kills_a_command_ends_all_that_it_started(planted, long_videos, tmp_path, name):
    command = MarkedCommand(line_of(name, planted, long_videos, tmp_path / "out"))
    command.wait_for(COMMANDS[name][1], begun_folder(name, tmp_path / "out"))
    assert command.kill() < LIMIT_S
    assert not command.left_memory


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment_it_leaves_no_process(planted, long_videos, tmp_path, name, record_property):
    """From its first instruction on: also while it starts what it needs, which is when a child knows its parent least."""
    rng = np.random.default_rng(list(COMMANDS).index(name))
    seconds = []
    for attempt in range(NUM_KILLS):
        out = tmp_path / f"out{attempt}"
        command = MarkedCommand(line_of(name, planted, long_videos, out))
        command.wait_for(int(rng.integers(1, COMMANDS[name][1] + 1)), begun_folder(name, out))
        time.sleep(rng.uniform(0, 1.0))
        seconds.append(command.kill())
        assert not command.left_memory
    record_property("seconds", str(seconds))
    assert max(seconds) < LIMIT_S
