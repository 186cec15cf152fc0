"""How long the official numbers of QVHighlights val take: 1,550 queries, ten windows and 75 clips each, both halves, one core.

    python benchmarks/qvh_eval.py [--golden FOLDER] [--queries 1550] [--json]

The official program takes 4.8 s of CPU for them (moments 0.9 s, highlights 3.9 s, its pools of processes made one; measured when
the golden numbers were made): it walks queries, thresholds and raters one by one, 1,550 x 9 sorted precision curves and 1,550 x
10 x 10 matchings x 2. The same numbers need no more than this: every value of both files once out of its Python list into an
array (46,500 of windows, 116,000 of predicted clips, 160,000 of rated clips and ids), one sort of the scores of each video
(1,550 x 75), and one pass over (clips x raters x levels). That is the limit that stands beside the time; rows are in memory,
reading and parsing the files (5 MB of JSON, 0.05 s) is not counted, there as here.
Seconds are CPU seconds, the best of several runs, since the machine may be shared. With --golden the shipped files are measured
and the numbers compared; else made ones of the same shape.
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from qle.eval.submissions.qvhighlights import evaluate_submission

OFFICIAL_S = 4.8
TARGET_S = 0.3
NUM_CLIPS, NUM_COLUMNS = 75, 9
Rows = Sequence[dict[str, Any]]


def made(num_queries: int) -> tuple[Rows, Rows]:
    """As many windows, clips and ratings as QVHighlights val has for each query, on average."""
    rng = np.random.default_rng(0)
    truth, said = [], []
    for qid in range(num_queries):
        starts = rng.integers(0, 60, rng.choice([1, 1, 2, 4])) * 2
        lengths = rng.choice([6, 20, 44], len(starts))
        clips = np.sort(rng.permutation(NUM_CLIPS)[: rng.integers(2, 50)])
        truth.append(
            {
                "qid": qid,
                "duration": 150,
                "relevant_windows": [[int(a), int(a + b)] for a, b in zip(starts, lengths, strict=True)],
                "relevant_clip_ids": clips.tolist(),
                "saliency_scores": rng.integers(0, 5, (len(clips), 3)).tolist(),
            }
        )
        spans = np.sort(rng.integers(0, 75, (10, 2)) * 2.0, axis=1) + np.array([0.0, 2.0])
        scores = np.sort(rng.random(10))[::-1]
        said.append(
            {
                "qid": qid,
                "pred_relevant_windows": np.concatenate([spans, scores[:, None]], axis=1).tolist(),
                "pred_saliency_scores": rng.normal(size=NUM_CLIPS).astype(np.float16).tolist(),
            }
        )
    return truth, said


def shipped(golden: Path) -> tuple[Rows, Rows, dict[str, Any]]:
    folder = golden / "qvh-eval"
    case = next(case for case in json.loads((folder / "cases.json").read_text()) if case["queries"] > 1000)
    packed = ((folder / case[kind]).read_bytes() for kind in ("ground_truth", "predictions"))
    truth, said = ([json.loads(line) for line in gzip.decompress(content).splitlines()] for content in packed)
    return truth, said, json.loads((folder / case["metrics"]).read_text())


def limit(truth: Rows, said: Rows) -> None:
    """Every number once into an array, one sort, one pass: what no program of this kind can do without."""
    lists = [
        *(chain.from_iterable(row["pred_relevant_windows"]) for row in said),
        *(row["pred_saliency_scores"] for row in said),
        *(chain.from_iterable(row["relevant_windows"]) for row in truth),
        *(row["relevant_clip_ids"] for row in truth),
        *(chain.from_iterable(row["saliency_scores"]) for row in truth),
    ]
    flat = np.array(list(chain.from_iterable(lists)), dtype=np.float64)
    table = np.resize(flat, (len(said), NUM_CLIPS))
    order = np.argsort(-table, axis=1, kind="stable")
    labels = np.resize(flat > 2, (len(said), NUM_CLIPS, NUM_COLUMNS))
    np.cumsum(np.take_along_axis(labels, order[..., None], axis=1), axis=1, dtype=np.int32)


def seconds(work: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=None)
    parser.add_argument("--queries", type=int, default=1550)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.golden is None:
        truth, said = made(options.queries)
    else:
        truth, said, expected = shipped(options.golden)
        if evaluate_submission(truth, said, published=True) != expected:
            raise SystemExit("the numbers are not the official ones")
    found = {
        "queries": len(said),
        "evaluation_s": seconds(lambda: evaluate_submission(truth, said, published=True), options.repeats),
        "limit_s": seconds(lambda: limit(truth, said), options.repeats),
    }
    found["ratio_to_limit"] = found["evaluation_s"] / found["limit_s"]
    found["faster_than_official"] = OFFICIAL_S * found["queries"] / 1550 / found["evaluation_s"]
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
        return
    took, least = found["evaluation_s"], found["limit_s"]
    print(f"{found['queries']:,} queries {took:.3f} s (target {TARGET_S} s)")
    print(f"{found['ratio_to_limit']:.1f} times the limit of {least:.3f} s")
    print(f"the official program takes {OFFICIAL_S} s for {1550:,}: {found['faster_than_official']:.0f} times as long")


if __name__ == "__main__":
    main()
