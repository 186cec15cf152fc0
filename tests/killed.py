"""A command in a process that is killed right before its n-th operation on files: a real SIGKILL, whatever the operation is."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny_cache import run

OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime", "os.truncate"}
"""What Python announces before it happens. Of the files that are opened only those count that are opened to be written."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at(number: int, below: Path, command: Callable[..., object], *arguments: object) -> bool:
    """Whether the command came to its n-th operation on files below a folder, and was killed before it."""
    code = run(_die_at, number, str(below), command, *arguments)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _die_at(number: int, below: str, command: Callable[..., object], *arguments: object) -> None:
    count = 0

    def listen(event: str, details: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in OPERATIONS and not (event == "open" and isinstance(details[2], int) and details[2] & WRITES):
            return
        # Below a handle names are short, and outside of the folder they are whole paths.
        if not str(details[0]).startswith("/") or str(details[0]).startswith(below):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(listen)
    command(*arguments)
