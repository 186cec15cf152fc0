"""Peak memory of `qle extract` on a video of ten minutes and on one of ten hours.

    python benchmarks/long_video.py [--hours 10] [--limit 1.05] [--json]

Both are 64x48 pictures at 2 fps and a row every second, through `tiny` with whole maps (900 MB for ten hours). The figures
are the largest resident sizes that were seen of the main process and of any decode process; the limit is that length costs
nothing, the ratio is the sum for the long video over the sum for the short one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from qle.extract.decode.write import write_video

FPS = 2


def peak_mib(folder: Path, name: str) -> tuple[float, float]:
    """(main, largest decode process) in MiB while this video is extracted."""
    line = [
        sys.executable,
        "-m",
        "qle",
        "extract",
        folder / name,
        "--cache",
        folder / f"cache-{name}",
        "--backbone",
        "tiny",
    ]
    process = subprocess.Popen(
        [*map(str, line), "--fps", "1", "--no-fsync", "--device", "cpu", "--quiet"], stdout=subprocess.DEVNULL
    )
    main, worker = 0.0, 0.0
    while process.poll() is None:
        try:
            whole = psutil.Process(process.pid)
            main = max(main, whole.memory_info().rss)
            worker = max([worker, *(child.memory_info().rss for child in whole.children())])
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"extraction of {name} ended with exit code {process.returncode}")
    return main / 2**20, worker / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--limit", type=float, help="exit 1 when the ratio is above this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        noise = np.random.default_rng(0).integers(0, 255, (64, 48, 64, 3), dtype=np.uint8)
        for name, seconds in (("short.mp4", 600), ("long.mp4", options.hours * 3600)):
            write_video(folder / name, (noise[i % 64] for i in range(round(seconds * FPS))), FPS)
            main_mib, worker_mib = peak_mib(folder, name)
            result |= {f"{name} main MiB": round(main_mib, 1), f"{name} decode MiB": round(worker_mib, 1)}
    sums = [result[f"{name} main MiB"] + result[f"{name} decode MiB"] for name in ("short.mp4", "long.mp4")]
    result["ratio"] = round(sums[1] / sums[0], 3)
    print(json.dumps(result) if options.json else "\n".join(f"{name:22} {value}" for name, value in result.items()))
    if options.limit is not None and result["ratio"] > options.limit:
        sys.exit(1)


if __name__ == "__main__":
    main()
