"""The command line in forks of a process that has imported everything: a command starts in no time, and may be killed.

warm_up() -> run_forked(line, prepare=...) -> Ended(code, stderr, seconds)
"""

import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

LIMIT_S = 240.0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, -9 where it was killed, "hang" where it had not ended after LIMIT_S."""

    code: int | str
    stderr: str
    seconds: float


def warm_up() -> None:
    """Import what most commands need; no thread of it may run before the forks."""
    import torch

    torch.set_num_threads(1)
    import qle.cli.app
    import qle.extract.run
    import qle.localize.run
    import qle.train.run  # noqa: F401


def run_forked(line: list[str], prepare: Callable[[], None]) -> Ended:
    """In a group of processes of its own, so that whatever it leaves running can be ended. `prepare` is called in the fork."""
    started_s = time.monotonic()
    with tempfile.TemporaryFile() as stderr:
        if not (pid := os.fork()):
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(stderr.fileno(), 2)
            prepare()
            _call(line)
        code = _wait(pid)
        stderr.seek(0)
        words = stderr.read().decode("utf-8", "replace")
    return Ended(code, words, round(time.monotonic() - started_s, 1))


def _call(line: list[str]) -> None:
    from qle.cli import ending
    from qle.cli.app import app

    sys.argv = ["qle", *line]
    try:
        ending.run(app)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter would show it
        import traceback

        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _wait(pid: int) -> int | str:
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], LIMIT_S)[0]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hang"
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
