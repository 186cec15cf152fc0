"""How long `qle --help` takes, and that it loads no torch.

    python benchmarks/help_time.py [--limit 0.3] [--json]

The limit is what an empty Python takes plus typer; the figure is the best of several, since a busy machine only adds.
It holds for a machine that starts an empty Python in 0.02 s. One that needs longer, slow or
shared, gets as much more.
"""

import argparse
import json
import subprocess
import sys
import time

EMPTY_S = 0.02
"""An empty Python on the machine that the limit is for."""
HEAVY = {"torch", "transformers", "av", "zarr", "h5py", "pyarrow"}
CHECK = f"import sys, qle.cli.app; bad = {HEAVY} & set(sys.modules); sys.exit(str(bad) if bad else 0)"


def seconds(command: list[str], repeats: int = 7) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, help="exit 1 when it takes longer than so many seconds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    subprocess.run([sys.executable, "-c", CHECK], check=True)
    result = {
        "help_s": round(seconds([sys.executable, "-m", "qle", "--help"]), 3),
        "empty_python_s": round(seconds([sys.executable, "-c", ""]), 3),
    }
    print(
        json.dumps(result)
        if options.json
        else f"qle --help {result['help_s']} s, empty Python {result['empty_python_s']} s"
    )
    if options.limit is None:
        return
    limit = options.limit * max(1.0, result["empty_python_s"] / EMPTY_S)
    if result["help_s"] > limit:
        sys.exit(f"qle --help took {result['help_s']} s, the limit is {limit:.3f} s")


if __name__ == "__main__":
    main()
