"""What training costs beside other work, with a thread for every core and with as many as cores are free.

    python benchmarks/busy_threads.py [--seconds 10] [--rounds 1] [--others 2] [--json]

Beside `--others` programs that do nothing but compute (one for each core where it is not given), two kinds of processes in turn
make steps of the head of `qle demo` (presets/qle/demo.toml, 10 x 10 cells of made-up numbers) for that many seconds: `free` with
the threads that qle chooses by itself, `all` with QLE_THREADS set to the number of cores. Reported are seconds a step over all
rounds, and their ratio. A process that is in its first step when its time is up counts with that one step, so the ratio may be
larger than told. `others` on the machine that nobody asked for count too, for both sides alike.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from threading import Timer

import torch

from qle.config import load_preset
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.heads.rows import RowBatch
from qle.runtime import free_cores, num_cores, use_free_threads
from qle.text import build_text_encoder
from qle.text.request import TextRequest

CELLS, TOKEN_DIM = 10, 64
WINDOWS, ROWS, QUERIES = 2, 5, 4


def make_batch() -> tuple[RowBatch, int]:
    """Windows of noise with four queries each, and the width of a word."""
    text = build_text_encoder(TextRequest(name="tiny"), "cpu").requires_grad_(requires_grad=False)
    queries = tuple(f"a polyp of colour {number}" for number in range(QUERIES))
    batch = RowBatch(
        streams={"patch": torch.randn(WINDOWS, ROWS, CELLS, CELLS, TOKEN_DIM)},
        row_mask=torch.ones(WINDOWS, ROWS, dtype=torch.bool),
        times_s=torch.arange(ROWS, dtype=torch.float64).expand(WINDOWS, ROWS),
        queries=queries,
        query_index=torch.arange(QUERIES).expand(WINDOWS, QUERIES),
        query_mask=torch.ones(WINDOWS, QUERIES, dtype=torch.bool),
        words=text(queries),
        relevance=torch.randint(0, 2, (WINDOWS, QUERIES, ROWS)).float(),
        relevance_mask=torch.ones(WINDOWS, QUERIES, ROWS, dtype=torch.bool),
    )
    return batch, text.dim


def make_steps() -> None:
    """Steps forward and back until somebody ends the process; a line says how many are done, and with how many threads."""
    torch.manual_seed(0)
    use_free_threads(lambda said: None)
    batch, text_dim = make_batch()
    settings = {name: value for name, value in load_preset("qle/demo")["head"].items() if name != "name"}
    shapes = TokenShapes(streams={"patch": (CELLS, CELLS, TOKEN_DIM)}, text_dim=text_dim, sentence_dim=text_dim)
    head = build_head("qle", settings, shapes).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4)
    for steps in itertools.count():
        print(steps, torch.get_num_threads(), flush=True)
        head.loss(head(batch), batch).total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def counted(seconds: float, **env: str) -> tuple[int, float, int]:
    """(steps, seconds that they took, threads) of a process of its own, from its beginning to work until its time is up."""
    line = [sys.executable, __file__, "--step"]
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "QLE_THREADS")}
    process = subprocess.Popen(line, env=clean | env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        threads = int(process.stdout.readline().split()[1])  # it is loaded now, and begins
        started = time.perf_counter()
        Timer(seconds, process.kill).start()
        ends = [time.perf_counter() for _ in process.stdout]
    finally:
        process.kill()
        process.wait()
    return (len(ends), ends[-1] - started, threads) if ends else (1, seconds, threads)


def compare(seconds: float, num_rounds: int, num_others: int) -> dict[str, object]:
    """Both sides beside the same busy programs, in turn."""
    free_before = free_cores()
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(num_others)]
    try:
        pairs = [(counted(seconds), counted(seconds, QLE_THREADS=str(num_cores()))) for _ in range(num_rounds)]
    finally:
        for process in others:
            process.kill()
            process.wait()
    free_s, all_s = (
        sum(side[1] for side in sides) / sum(side[0] for side in sides) for sides in zip(*pairs, strict=True)
    )
    return {
        "cores": num_cores(), "others": num_others, "free_before": free_before,
        "free_threads": [free[2] for free, _ in pairs], "free_steps": [free[0] for free, _ in pairs],
        "all_threads": [whole[2] for _, whole in pairs], "all_steps": [whole[0] for _, whole in pairs],
        "free_step_s": round(free_s, 3), "all_step_s": round(all_s, 3), "ratio": round(all_s / free_s, 2),
        "load": [round(load, 1) for load in os.getloadavg()],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of steps, for each side and round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--others", type=int, default=num_cores())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--step", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        make_steps()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the busy programs must not outlive this one
    result = compare(options.seconds, options.rounds, options.others)
    print(json.dumps(result) if options.json else "\n".join(f"{name:<14}{value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
