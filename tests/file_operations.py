"""Commands that are killed before one of their file operations, or in which one fails, and are then run again.

    python -m tests.file_operations PLAN.json OUTCOMES.json

PLAN.json: {"folder": folder to write to, "seed", "trials": of each kind and command, 0 for every operation, "commands": {name: {
"line": [...], "copies": {from: to below the folder}}}}. OUTCOMES.json: {name: [{"fault", "number", "operation", "first", "again",
"is_same", "left"}, ...]}.

An operation is one that opens a file for writing, writes, syncs, renames, links, removes or makes a folder, below the folder that
the command writes to; what fails with an errno is also one that opens a file for reading. They are counted in the process of
the command, by Python's audit events and in place of the four functions of `os` that have none. What C libraries write by
themselves (HDF5, Parquet) is not seen, but the names that they get are.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.forked import Ended, run_forked, warm_up
from tests.writing_commands import copy_into

FAULTS = ("kill", "EIO", "EMFILE")
CHANGING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
UNSEEN = ("write", "pwrite", "fsync", "posix_fallocate")
"""Functions of `os` that tell nobody of what they do."""
COUNTS = ".operations"


class Operations:
    """Counts operations below a folder, and brings its fault at one of them."""

    def __init__(self, folder: Path, fault: str, number: int | None) -> None:
        self.folder, self.fault, self.number = str(folder.resolve()), fault, number
        self.names: list[str] = []
        self._lock = threading.RLock()

    def watch(self) -> None:
        """From now on, in this process."""
        sys.addaudithook(self._heard)
        for name in UNSEEN:
            setattr(os, name, self._counted(name, getattr(os, name)))

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, _, flags = arguments
            is_changing = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            if (is_changing or self.fault != "kill") and self._is_below(os.fsdecode(path)):
                self._count(f"open {os.fsdecode(path)} {'w' if is_changing else 'r'}")
        elif event in CHANGING and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsdecode(arguments[0])
            if self._is_below(path):
                self._count(f"{event} {path}")

    def _counted(self, name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(fd: int, *arguments: Any) -> Any:
            if (path := _path_of(fd)).startswith(self.folder + os.sep):
                self._count(f"{name} {path}")
            return function(fd, *arguments)

        return call

    def _is_below(self, path: str) -> bool:
        """A name without a folder is one in a folder that is held open, as the cache does below a space."""
        return path.startswith(self.folder + os.sep) or not os.path.isabs(path)

    def _count(self, name: str) -> None:
        with self._lock:
            number = len(self.names)
            self.names.append(name)
        if number == self.number:
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            code = getattr(errno, self.fault)
            raise OSError(code, os.strerror(code), name.split()[1])


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def main(plan: Mapping[str, Any], outcomes: Path) -> None:
    folder, results = Path(plan["folder"]), {}
    for name, command in plan["commands"].items():
        results[name] = list(_try(folder, command, random.Random(f"{plan['seed']} {name}"), plan["trials"]))
        outcomes.write_text(json.dumps(results))


def _try(folder: Path, command: Mapping[str, Any], draw: random.Random, trials: int) -> Iterator[dict[str, Any]]:
    names = {}
    for fault in FAULTS[:2]:
        _fresh(folder, command)
        undisturbed, names[fault] = _run(command["line"], folder, fault, None)
        assert undisturbed.code == 0, undisturbed
    expected = contents(folder)
    for fault in FAULTS:
        operations = names["kill" if fault == "kill" else "EIO"]
        chosen = (
            range(len(operations)) if not trials else draw.sample(range(len(operations)), min(trials, len(operations)))
        )
        for number in sorted(chosen):
            _fresh(folder, command)
            first, seen = _run(command["line"], folder, fault, number)
            again, _ = _run(command["line"], folder, "kill", None)
            left = contents(folder)
            yield {
                "fault": fault, "number": number, "operation": seen[number] if number < len(seen) else "",
                "first": dataclasses.asdict(first), "again": dataclasses.asdict(again),
                "is_same": all(left.get(name) == digest for name, digest in expected.items()),
                "left": sorted(left.keys() - expected.keys()),
            }  # fmt: skip


def _fresh(folder: Path, command: Mapping[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy_into(folder, command["copies"])


def _run(line: list[str], folder: Path, fault: str, number: int | None) -> tuple[Ended, list[str]]:
    counts = folder.parent / COUNTS
    counts.unlink(missing_ok=True)

    def watch() -> None:
        operations = Operations(folder, fault, number)
        operations.watch()
        leave, kill = os._exit, os.kill

        def tell(*arguments: Any, end: Any) -> None:
            counts.write_text(json.dumps(operations.names))
            end(*arguments)

        os._exit = functools.partial(tell, end=leave)
        os.kill = functools.partial(tell, end=kill)

    ended = run_forked(line, watch)
    return ended, json.loads(counts.read_text()) if counts.exists() else []


VOLATILE = (
    "index.parquet",
    "_COMMIT.json",
    "_PACK.json",
    "space.json",
    "qle-cache.json",
    ".meta",
    "config.json",
    "/pooled.json",
    "report.html",
)
"""Files that hold times, hosts or random names, so that only their being there is compared."""
VOLATILE_NAME = re.compile(r"/events\.out\.tfevents\.|/coarse-[0-9a-f]+\.json$")
RANDOM_NAME = re.compile(
    r"(?<=/pack-)[0-9a-f]{16}|(?<=/events\.out\.tfevents\.).*|(?<=/table-)[0-9a-f]{16}"
    r"|(?<=/vectors-)[0-9a-f]{8}|(?<=/means-)[0-9a-f]{8}|(?<=-)[0-9a-f]{8}(?=\.f16$)"
)
"""Parts of names that another run draws anew."""


def contents(folder: Path) -> dict[str, str]:
    """Names of files below the folder with the digest of their bytes, of folders without."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = RANDOM_NAME.sub("*", str(path.relative_to(folder)))
        is_compared = path.is_file() and not name.endswith(VOLATILE) and not VOLATILE_NAME.search(name)
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_compared else ""
    return digests


if __name__ == "__main__":
    warm_up()
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
