"""The command line in processes of its own, and what a cache holds afterwards."""

import hashlib
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qle.cli import ending
from qle.cli.app import app

HEARS_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""First lines of a program that a test interrupts. Whoever runs the tests with nohup, in the background of a script or in a batch
job may have had SIGINT ignored, which a program inherits and `qle` honours: it would work on."""

# Time limits of processes in the tests are 600 s: they end what hangs, and never what other work on the machine holds up.

LONG_FRAMES = 1100
"""Of the `long_videos`' long.mp4: two whole shards and a part, and two ranges for two decoders."""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    line = [sys.executable, "-m", "qle", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in this process: the same code from its arguments to its exit code, without the seconds that a new
    interpreter takes to import torch. A bug is not caught, and fails the test with its traceback."""
    line = list(map(str, arguments))
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        ending.run(partial(app, line))
    return subprocess.CompletedProcess(line, int(end.value.code or 0), stdout.getvalue(), stderr.getvalue())


def committed_bytes(cache: Path) -> dict[str, str]:
    """Hash of every data file below `videos/`, by its path; records hold times and hosts and are left out."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.glob("*/videos/**/*"))
        if path.is_file() and path.name != "_COMMIT.json"
    }


def record_fields(path: Path) -> dict[str, Any]:
    """The fields of a JSON record, to be changed and written back: without the digest that would tell of the change."""
    return {name: value for name, value in json.loads(path.read_bytes()).items() if name != "digest"}
