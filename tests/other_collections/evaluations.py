"""Sets of evaluation programs: made-up annotations and answers, and the numbers of our own protocols in the official files."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from qle.errors import AnnotationError
from qle.eval.submissions.charades import LEVELS, hull_overlap
from qle.eval.submissions.qvhighlights import evaluate_submission
from qle.eval.submissions.rows import CLIP_S
from qle.eval.windows import share_at_least
from tests.other_collections.shared import write_case


def qvhighlights_set(folder: Path, draw: random.Random) -> None:
    """A case that is answered in full, one with a query that nobody answered, and one that stops the program."""
    cases = []
    for number, fault in enumerate(("none", "missing", "twice")):
        truth = [_asked(qid, draw) for qid in range(draw.randint(6, 12))]
        said = [_answered(row, draw) for row in truth]
        if fault == "missing":
            said.pop()
        if fault == "twice":
            said[0]["pred_relevant_windows"] = [["later", 3, 1.0]]
        match_number = fault != "missing"
        try:
            expected = evaluate_submission(truth, said, match_number=match_number, published=True)
        except AnnotationError:
            expected = {"error": "AssertionError"}
        files = {"ground_truth": f"g{number}.jsonl", "predictions": f"p{number}.jsonl", "metrics": f"m{number}.json"}
        (folder / files["ground_truth"]).write_text("".join(json.dumps(row) + "\n" for row in truth))
        (folder / files["predictions"]).write_text("".join(json.dumps(row) + "\n" for row in said))
        (folder / files["metrics"]).write_text(json.dumps(expected))
        cases.append(
            {"name": f"case {draw.randrange(10**6)}", "match_number": match_number, "queries": len(truth)} | files
        )
    (folder / "cases.json").write_text(json.dumps(cases))


def _asked(qid: int, draw: random.Random) -> dict[str, Any]:
    """Short, middle and long moments take turns, since the program stops where one of them is missing."""
    length, first = draw.randint(*((2, 5), (6, 15), (16, 60))[qid % 3]), draw.randrange(20)
    relevant, num_clips = list(range(first, first + length)), first + length + draw.randrange(20)
    return {
        "qid": qid, "query": "a query", "vid": f"v{qid}", "duration": CLIP_S * num_clips, "relevant_clip_ids": relevant,
        "relevant_windows": [[CLIP_S * relevant[0], CLIP_S * (relevant[-1] + 1)]],
        "saliency_scores": [[draw.randint(0, 4) for _ in range(3)] for _ in relevant],
    }  # fmt: skip


def _answered(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    starts = [draw.uniform(0, row["duration"] - 3) for _ in range(draw.randint(1, 6))]
    windows = [[start, draw.uniform(start + 1, row["duration"]), draw.random()] for start in starts]
    scores = [draw.gauss(0, 1) for _ in range(int(row["duration"] / CLIP_S))]
    windows.sort(key=lambda window: -window[2])
    return {"qid": row["qid"], "pred_relevant_windows": windows, "pred_saliency_scores": scores}


def charades_set(folder: Path, draw: random.Random) -> None:
    """One span for each query, and one and the same span for all of them."""
    rng = np.random.default_rng(draw.randrange(10**6))
    spans, targets = (_random_spans(rng, 40) for _ in range(2))
    overlap = hull_overlap(*spans.T, *targets.T)
    expected = {"thresholds": list(LEVELS), "random": _hits(overlap), "constant_span_floors": []}
    tensors = {"in.pred": spans, "in.gt": targets, "out.tiou": overlap.astype(np.float32)}
    write_case(folder, draw, {name: torch.from_numpy(values) for name, values in tensors.items()})
    expected["random"] |= {"file": next(folder.glob("case-*")).name}
    held = _random_spans(rng, draw.randint(20, 60))
    save_file({"gt": held}, folder / f"{draw.randrange(1000)}-spans.safetensors")
    for span in ([0.0, 1.0], [0.25, 0.75]):
        floor = hull_overlap(*np.tile(span, (len(held), 1)).T, *held.T)
        expected["constant_span_floors"].append(_hits(floor) | {"span": span})
    (folder / "expected.json").write_text(json.dumps(expected))
    (folder / "config.json").write_text(json.dumps({"iou_thresholds": list(LEVELS)}))


def _random_spans(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.sort(rng.random((count, 2)), axis=1).astype(np.float32)


def _hits(overlap: np.ndarray) -> dict[str, Any]:
    """How many reach each level, and how many are so near to it that the last digit decides."""
    return {
        "queries": len(overlap), "mIoU": float(overlap.mean()),
        "hits": {str(level): int(share_at_least(overlap, level).sum()) for level in LEVELS},
        "within_1e-5_of_threshold": {str(level): int((abs(overlap - level) < 1e-5).sum()) for level in LEVELS},
    }  # fmt: skip
