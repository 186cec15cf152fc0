"""Children of a command, in real processes: what they do for it, and that they end with it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import pytest

from qle.children import start_child

pytestmark = pytest.mark.slow

BUSY = """
import os, signal, sys
from qle.children import start_child
child = start_child("tests.unit.test_children:hold_the_interpreter", {})
child.pipe.recv()
print(child.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def answer(pipe: Connection, number: int) -> None:
    pipe.send(number + pipe.recv())


def hold_the_interpreter(pipe: Connection) -> None:
    """As the import of a large library does: no other thread comes to run."""
    pipe.send("at work")
    ctypes.PyDLL(None).sleep(60)


def test_a_child_works_with_its_arguments_and_what_comes_through_the_pipe() -> None:
    child = start_child("tests.unit.test_children:answer", {"number": 3})
    child.pipe.send(4)
    assert child.pipe.recv() == 7
    assert child.wait() == 0
    assert child.wait() == 0


@pytest.mark.skipif(not hasattr(os, "O_ASYNC"), reason="no signals of pipes here")
def test_a_child_that_is_deep_in_a_library_ends_with_its_parent() -> None:
    parent = subprocess.run([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    assert parent.returncode == -signal.SIGKILL
    until_s = time.monotonic() + 2.0
    while _is_running(int(parent.stdout)):
        assert time.monotonic() < until_s
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    """Not one that has ended and waits for somebody to take notice."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
