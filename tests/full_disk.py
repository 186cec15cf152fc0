"""Commands on a disk that has so much free space and no more: a real one, made for the purpose and gone with this process.

    unshare --map-root-user --mount python -m tests.full_disk PLAN.json OUTCOMES.json

PLAN.json: {"disk": folder to mount on, "commands": {name: {"line": [...], "copies": {from: to below the disk}}}}. Each command is
run with nothing free, then again as space comes free, over whatever its failed attempts have left, until it succeeds.
OUTCOMES.json: {name: [{"free", "code", "stderr", "seconds"}, ...]}. Code "hang" for what did not end.

Exit code 77: nothing can be mounted here. The commands run in forks.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.forked import run_forked, warm_up
from tests.writing_commands import copy_into

DISK_BYTES = 64 << 20
FREE_BYTES: tuple[int | None, ...] = (0, 100_000, 1_000_000, 6_000_000, None)
"""None: as much as it needs."""
CANNOT_MOUNT = 77


def main(plan: Mapping[str, Any], outcomes: Path) -> None:
    disk = Path(plan["disk"])
    found = {}
    for name, command in plan["commands"].items():
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            sys.exit(CANNOT_MOUNT)
        try:
            found[name] = _grow(disk, command)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
        outcomes.write_text(json.dumps(found))


def _grow(disk: Path, command: Mapping[str, Any]) -> list[dict[str, Any]]:
    copy_into(disk, command["copies"])
    (disk / "tmp").mkdir()
    outcomes = []
    for free in FREE_BYTES:
        _leave_free(disk, free)
        outcomes.append({"free": free, **_run(command["line"], disk)})
        if outcomes[-1]["code"] in (0, "hang"):
            break
    return outcomes


def _leave_free(disk: Path, free: int | None) -> None:
    """By a file that takes the rest."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    if free is None:
        return
    state = os.statvfs(disk)
    size = (state.f_bavail * state.f_frsize - free) // state.f_frsize * state.f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _run(line: list[str], disk: Path) -> dict[str, Any]:
    def use_its_temporary_folder() -> None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(disk / "tmp")

    return dataclasses.asdict(run_forked(line, use_its_temporary_folder))


if __name__ == "__main__":
    warm_up()
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
