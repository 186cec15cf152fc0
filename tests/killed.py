"""A command in a process that is killed right before its n-th operation on files: a real SIGKILL, whatever the operation is."""

import signal
from collections.abc import Callable
from pathlib import Path

from tests.file_operations import Operations
from tests.tiny_cache import run


def killed_at(number: int, below: Path, command: Callable[..., object], *arguments: object) -> bool:
    """Whether the command came to its n-th operation on files below a folder, and was killed before it."""
    code = run(_die_at, number, below, command, *arguments)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _die_at(number: int, below: Path, command: Callable[..., object], *arguments: object) -> None:
    Operations(below, "kill", number - 1).watch()
    command(*arguments)
