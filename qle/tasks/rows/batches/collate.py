"""Windows, their tokens and their questions -> one RowBatch: distinct queries with an index, masks, labels, times.

Shapes do not depend on what was drawn: every batch has `queries_per_window` places, masked where a window has fewer
questions, so that compiled and captured steps can be used again.
"""

from collections.abc import Sequence

import numpy as np
import torch

from qle.data.rows import RowChoice
from qle.heads.rows import RowBatch
from qle.tasks.rows.batches.questions import Question
from qle.tasks.rows.batches.sources import TokenWindows
from qle.tasks.rows.batches.windows import WindowBatch


def collate(
    windows: WindowBatch,
    tokens: TokenWindows,
    rows: Sequence[tuple[str, RowChoice]],
    questions: Sequence[Sequence[Question]],
    num_slots: int,
) -> RowBatch:
    """rows: key and chosen rows of every video, by its number. questions: of every window, their texts already mirrored."""
    num_windows, num_rows = tokens.usable.shape
    texts: dict[str, int] = {}
    times_s = np.empty((num_windows, num_rows))
    query_index = np.zeros((num_windows, num_slots), dtype=np.int64)
    query_mask = np.zeros((num_windows, num_slots), dtype=bool)
    relevance = np.zeros((num_windows, num_slots, num_rows), dtype=np.float32)
    known = np.zeros((num_windows, num_slots, num_rows), dtype=bool)
    for window, (video, first) in enumerate(zip(windows.video.tolist(), windows.first.tolist(), strict=True)):
        times = rows[video][1].times_s[first : first + num_rows]
        times_s[window, : len(times)], times_s[window, len(times) :] = times, times[-1]
        for slot, question in enumerate(questions[window]):
            query_index[window, slot] = texts.setdefault(question.text, len(texts))
            query_mask[window, slot] = True
            relevance[window, slot, : len(times)] = question.relevance
            known[window, slot, : len(times)] = question.known
    known &= tokens.usable[:, None, :]
    relevance *= known
    return RowBatch(
        streams=tokens.streams,
        row_mask=torch.from_numpy(tokens.usable),
        times_s=torch.from_numpy(times_s),
        queries=tuple(texts),
        query_index=torch.from_numpy(query_index),
        query_mask=torch.from_numpy(query_mask),
        relevance=torch.from_numpy(relevance),
        relevance_mask=torch.from_numpy(known),
        videos=tuple(rows[video][0] for video in windows.video.tolist()),
        first_rows=tuple(windows.first.tolist()),
    )
