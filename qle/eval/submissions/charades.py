"""The protocol of Charades-STA: R@1 and R@5 at overlaps 0.1 to 0.7, mIoU; one window a query. numpy only.

    spans + targets -> overlap -> shares; a constant span for all of them is the floor

Overlap is intersection over hull: that is intersection over union where two spans touch, and 0 where they do not. A reversed
span overlaps nothing, nor do two of no length; nothing is clipped to the video. Means are over all queries, where the scripts
that this follows print a mean of means of batches. They compute in float32, we in float64: overlaps that are exactly on a
level count as reaching it, as they do in exact arithmetic (`moments.share_at_least`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qle.data.annotations import Annotation
from qle.eval.moments.answers import MomentAnswers, MomentTable
from qle.eval.moments.metrics import Values, best_so_far
from qle.eval.moments.report import PROTOCOL, Beside, report_of
from qle.eval.report import Report
from qle.eval.submissions.answers import submitted_answers
from qle.eval.submissions.rows import Row
from qle.eval.windows import share_at_least

LEVELS = (0.1, 0.3, 0.5, 0.7)
DEPTHS = (1, 5)
WORDS = (
    "rN@m: one of the first N spans, in the order of the file, overlaps the window by m or more (intersection over hull, "
    "nothing clipped, reversed spans 0). miou: mean overlap of the first."
)


def hull_overlap(start_a: np.ndarray, end_a: np.ndarray, start_b: np.ndarray, end_b: np.ndarray) -> np.ndarray:
    """Pair by pair (arrays that broadcast); NaN where a time is."""
    both = np.maximum(np.minimum(end_a, end_b) - np.maximum(start_a, start_b), 0)
    hull = np.maximum(end_a, end_b) - np.minimum(start_a, start_b)
    return np.asarray(np.divide(both, hull, out=np.zeros_like(both), where=hull != 0))


def span_metrics(spans: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """R1@0.1 ... R1@0.7 and mIoU as parts of 1: of (queries, 2) spans and targets in any one unit."""
    overlap = hull_overlap(*spans.T, *targets.T)
    shares = {f"R1@{level}": float(share_at_least(overlap, level).mean()) for level in LEVELS}
    return {**shares, "mIoU": float(overlap.mean())}


def charades_values(table: MomentTable, answers: MomentAnswers) -> Values:
    """(pairs,) each; NaN for queries without a window. Of several windows the one that overlaps most counts."""
    windows, lists = table.windows, answers.lists
    start, end = lists.start_s[windows.owner], lists.end_s[windows.owner]
    overlap = hull_overlap(start, end, windows.start_s[:, None], windows.end_s[:, None])
    best = best_so_far(np.nan_to_num(overlap), windows)
    return {
        **{
            f"r{depth}@{level}": share_at_least(best[:, min(depth, best.shape[1]) - 1], level)
            for depth in DEPTHS
            for level in LEVELS
        },
        "miou": best[:, 0],
    }


def charades_report(
    annotations: Sequence[Annotation],
    rows: Sequence[Row],
    beside: Beside,
    *,
    name: str,
    allow_missing: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """The report of a file of predictions; `name` is that of the file, for messages."""
    submitted = submitted_answers(
        annotations, rows, name=name, allow_missing=allow_missing, by_score=False, allow_reversed=True
    )
    return report_of(
        submitted.table,
        submitted.answers,
        beside,
        measures={"charades": charades_values},
        protocol={"charades": WORDS, "floors": PROTOCOL["floors"], "interval": PROTOCOL["interval"]},
        counts=submitted.counts,
        settings=provenance or {},
    )
