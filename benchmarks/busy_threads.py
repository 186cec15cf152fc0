"""What a training costs beside other work, with a thread for every core and with as many as cores are free.

    python benchmarks/busy_threads.py [--steps 20] [--others 2] [--json]

Made-up videos are extracted once; then `qle train-heads` runs in a process of its own beside `--others` programs that do nothing
but compute (one for each core where it is not given). `all_s` and `free_s` are seconds of training as the run itself tells them,
with QLE_THREADS set to the number of cores and with nothing set; `others` on the machine that nobody asked for count too.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from qle.runtime import free_cores, num_cores


def qle(*arguments: object, **env: str) -> Any:
    line = [sys.executable, "-m", "qle", *map(str, arguments), "--json", "--quiet"]
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "QLE_THREADS")}
    return json.loads(subprocess.run(line, env=clean | env, stdout=subprocess.PIPE, check=True).stdout)


def made_cache(folder: Path) -> tuple[Path, Path]:
    qle("prepare", "synthetic", folder / "made", "--train", 6, "--val", 2, "--test", 1, "--composition", 1)
    videos = folder / "made" / "videos"
    qle("extract", "--videos", videos, "--root", videos, "--cache", folder / "cache", "--backbone", "tiny", "--fps", 2)
    return folder / "cache", folder / "made" / "annotations"


def trained(cache: Path, annotations: Path, out: Path, steps: int, **env: str) -> dict[str, Any]:
    summary = qle(
        "train-heads", "--cache", cache, "--annotations", annotations / "train.jsonl", "--val", annotations / "val.jsonl",
        "--out", out, "--device", "cpu", "--preset", "qle/demo", "--set", f"train.steps={steps}", **env,
    )  # fmt: skip
    threads = json.loads((out / "environment.json").read_text())["num_threads"]
    return {"seconds": summary["runs"][0]["seconds"], "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--others", type=int, default=num_cores())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the busy programs below must not outlive this one
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache, annotations = made_cache(folder)
        free_before = free_cores()
        others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(options.others)]
        try:
            free = trained(cache, annotations, folder / "free", options.steps)
            whole = trained(cache, annotations, folder / "all", options.steps, QLE_THREADS=str(num_cores()))
        finally:
            for process in others:
                process.kill()
                process.wait()
    found = {
        "steps": options.steps, "cores": num_cores(), "others": options.others, "free_before": free_before,
        "all_s": round(whole["seconds"], 1), "all_threads": whole["threads"],
        "free_s": round(free["seconds"], 1), "free_threads": free["threads"],
        "ratio": round(whole["seconds"] / free["seconds"], 2), "load": [round(load, 1) for load in os.getloadavg()],
    }  # fmt: skip
    print(json.dumps(found) if options.json else "\n".join(f"{name:<14}{value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
