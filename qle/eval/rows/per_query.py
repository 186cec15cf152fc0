"""The table of queries: the same numbers for all pairs that ask the same text."""

from collections.abc import Sequence

import numpy as np

from qle.eval.ranking import auroc, average_precision, count, f1, mean_known, rank, ratio
from qle.eval.report import QueryRow
from qle.eval.rows.frames import FrameScores
from qle.eval.rows.scored import RowTable, ScoredQuery
from qle.eval.rows.segments import SegmentScores
from qle.eval.windows import Windows, best_overlap, share_at_least


def query_rows(
    scored: Sequence[ScoredQuery],
    table: RowTable,
    frame: FrameScores,
    segment: SegmentScores,
    windows: Windows,
    has_moment: np.ndarray,
) -> list[QueryRow]:
    """One row for each distinct text, in the order in which they first come."""
    overlap = best_overlap(segment.answered, windows)
    is_present = windows.counts > 0
    pairs: dict[str, list[int]] = {}
    for number, scored_query in enumerate(scored):
        pairs.setdefault(scored_query.annotation.query, []).append(number)
    slices = table.slices()
    measured = []
    for query, numbers in pairs.items():
        rows = np.concatenate([np.arange(slices[k].start, slices[k].stop) for k in numbers])
        rows = rows[table.usable[rows]]
        label, decision = table.label[rows], frame.decision[rows]
        counts = count(rank(frame.score[rows]), label)
        absent = ~is_present[numbers]
        measured.append(
            QueryRow(
                query=query,
                num_videos=len(np.unique(table.video[numbers])),
                num_present=len(np.unique(table.video[numbers][~absent])),
                base_rate=float(ratio(label.sum(), len(label))),
                auroc=float(auroc(counts)),
                average_precision=float(average_precision(counts)),
                f1=float(f1((label & decision).sum(), decision.sum(), label.sum())),
                r1_at_05=mean_known(share_at_least(overlap[numbers], 0.5)),
                miou=mean_known(overlap[numbers]),
                false_alarm_rate=float(ratio((has_moment[numbers] & absent).sum(), absent.sum())),
            )
        )
    return measured
