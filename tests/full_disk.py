"""Commands on a disk that has so much free space and no more: a real one, made for the purpose and gone with this process.

    unshare --map-root-user --mount python -m tests.full_disk PLAN.json OUTCOMES.json

PLAN.json: {"disk": folder to mount on, "commands": {name: {"line": [...], "copies": {from: to below the disk}}}}. Each command is
run with nothing free, then again as space comes free, over whatever its failed attempts have left, until it succeeds.
OUTCOMES.json: {name: [{"free", "code", "stderr", "seconds"}, ...]}. Code "hang" for what had not ended after LIMIT_S.

Exit code 77: nothing can be mounted here. Everything is imported once; the commands run in forks, which start in no time.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DISK_BYTES = 64 << 20
FREE_BYTES: tuple[int | None, ...] = (0, 100_000, 1_000_000, 6_000_000, None)
"""None: as much as it needs."""
LIMIT_S = 240.0
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
    for source, target in command["copies"].items():
        (shutil.copytree if Path(source).is_dir() else shutil.copy)(source, disk / target)
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
    """In a fork of this process, in a group of its own, so that whatever it leaves running can be ended."""
    started_s = time.monotonic()
    with tempfile.TemporaryFile() as stderr:
        if not (pid := os.fork()):
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(stderr.fileno(), 2)
            os.environ["TMPDIR"] = tempfile.tempdir = str(disk / "tmp")
            _call(line)
        code = _wait(pid)
        stderr.seek(0)
        words = stderr.read().decode("utf-8", "replace")
    return {"code": code, "stderr": words, "seconds": round(time.monotonic() - started_s, 1)}


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
    deadline_s = time.monotonic() + LIMIT_S
    handle = os.pidfd_open(pid)
    try:
        import select

        if not select.select([handle], [], [], deadline_s - time.monotonic())[0]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hang"
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    # What most commands need, once; no thread of it may run before the forks.
    import torch

    torch.set_num_threads(1)
    import qle.cli.app
    import qle.extract.run
    import qle.localize.run
    import qle.train.run  # noqa: F401

    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
