"""Scored queries with known truth, for tests of evaluation: no head, no cache, no torch."""

import numpy as np

from qle.data.annotations import Annotation
from qle.eval.rows.scored import ScoredQuery
from qle.segments.spans import union, window_cover
from qle.types import ScoreTrack

Windows = tuple[tuple[float, float], ...]


def scored_query(
    windows: Windows,
    logit: np.ndarray,
    *,
    video: str = "a.mp4",
    query: str = "a polyp",
    qid: str = "0",
    row_s: float = 1.0,
    valid: np.ndarray | None = None,
) -> ScoredQuery:
    """One pair with rows of equal length."""
    rows = len(logit)
    lines = np.arange(rows + 1) * row_s
    return ScoredQuery(
        annotation=Annotation(qid=qid, video=video, query=query, windows=windows, duration_s=rows * row_s),
        video=video,
        track=ScoreTrack(
            times_s=lines[:-1] + row_s / 2,
            edges_s=lines,
            valid=np.ones(rows, bool) if valid is None else valid,
            logit=np.asarray(logit, np.float32),
        ),
    )


def made_scores(
    num_videos: int = 8, num_queries: int = 4, rows: int = 60, *, separation: float = 2.0, seed: int = 0
) -> list[ScoredQuery]:
    """Normal logits, `separation` higher (lower, where negative) in rows in which the query happens; a third is absent."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(num_videos):
        for query in range(num_queries):
            windows: Windows = ()
            if rng.random() > 1 / 3:
                starts = rng.uniform(0, rows * 0.8, size=rng.integers(1, 3))
                spans = union(np.stack([starts, starts + rng.uniform(0.05, 0.2, len(starts)) * rows], axis=1))
                windows = tuple((float(a), float(b)) for a, b in spans)
            cover = window_cover(windows, np.arange(rows + 1.0))
            logit = rng.normal(size=rows) + separation * (2 * cover - 1)
            made.append(
                scored_query(windows, logit, video=f"v{number}.mp4", query=f"query {query}", qid=f"{number}-{query}")
            )
    return made
