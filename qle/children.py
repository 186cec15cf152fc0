"""Processes that a command starts to work for it, and that never outlive it.

    start_child("package.module:function", {...}) -> Child: its process, and the pipe through which both talk

A child is an interpreter of its own, started by hand rather than through multiprocessing: nothing of the parent (locks, CUDA,
threads, its main module) is inherited, no server and no resource tracker run beside it, and no semaphore exists that a kill
could leave. It watches its parent from its first instruction on, before anything is imported, and ends at once when that is
gone, in whatever it is caught: whoever kills the command with -9 leaves no process behind. The kernel tells it by a signal, since
the end of a pipe that its parent holds is closed; a thread looks, too, where there is no such signal.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

PARENT_CHECK_S = 0.2
"""Between two looks of a child at its parent."""

# The death signal of a parent would already come when the thread ends that started the child, so the signal is that of a pipe
# (SIGIO, which ends who does not handle it), and needs no interpreter: importing torch holds it for seconds. Ctrl-C reaches the
# whole group of a terminal; the parent alone decides what becomes of the work.
BOOT = """
import fcntl, json, os, signal, sys, threading, time
start = json.loads(sys.argv[1])
if hasattr(os, "O_ASYNC"):
    fcntl.fcntl(start["life_fd"], fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(start["life_fd"], fcntl.F_SETFL, os.O_ASYNC)
def watch():
    while os.getppid() == start["parent_pid"]:
        time.sleep(start["check_s"])
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
for number in start["ignored"]:
    signal.signal(number, signal.SIG_IGN)
os.environ.update(start["environment"])
sys.path[:] = start["path"]
from importlib import import_module
from multiprocessing.connection import Connection
module, function = start["call"].split(":")
getattr(import_module(module), function)(Connection(start["pipe_fd"]), **start["arguments"])
"""


def end_with_parent() -> None:
    """From now on this process ends at once when the one that started it is gone. For those that a launcher has started: where
    that is killed, nobody would wait for them, and the cores and GPUs would stay taken."""
    parent_pid = os.getppid()

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(PARENT_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours, seen from its parent. The pipe ends when the process does."""

    process: "subprocess.Popen[bytes]"
    pipe: Connection
    life: Connection
    """Nothing is ever written there. When this process is gone, or lets go of the child, the kernel ends the child."""

    def kill(self) -> int:
        """End it at once, whatever it is at; its exit code comes back."""
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; its exit code comes back."""
        code = self.process.wait()
        self.pipe.close()
        self.life.close()
        return code


def start_child(
    call: str,
    arguments: Mapping[str, Any],
    *,
    ignored: Sequence[signal.Signals] = (signal.SIGINT,),
    environment: Mapping[str, str] | None = None,
    inherited_fds: Sequence[int] = (),
    stderr: IO[bytes] | None = None,
) -> Child:
    """Start a process that calls `function(pipe, **arguments)` of `module`, named as "module:function".

    The arguments are plain JSON values; everything else goes through the pipe. `inherited_fds` keep their numbers in the
    child. Results of a command go to its standard output, so a child writes nothing there.
    """
    ours, theirs = socket.socketpair()
    life_theirs_fd, life_ours_fd = os.pipe()
    start = {
        "call": call,
        "arguments": dict(arguments),
        "path": sys.path,
        "pipe_fd": theirs.fileno(),
        "life_fd": life_theirs_fd,
        "parent_pid": os.getpid(),
        "check_s": PARENT_CHECK_S,
        "ignored": [int(number) for number in ignored],
        "environment": dict(environment or {}),
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(start)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(theirs.fileno(), life_theirs_fd, *inherited_fds),
        )
    except BaseException:
        ours.close()
        os.close(life_ours_fd)
        raise
    finally:
        theirs.close()
        os.close(life_theirs_fd)
    return Child(process, Connection(ours.detach()), Connection(life_ours_fd, readable=False))
