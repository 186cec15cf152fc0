"""The command line in processes of its own, and what a cache holds afterwards."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LONG_FRAMES = 1100
"""Of the `long_videos`' long.mp4: two whole shards and a part, and two ranges for two decoders."""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    line = [sys.executable, "-m", "qle", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


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
