"""Ranked queries with known truth, for tests of the evaluation of moment heads: no head, no cache, no torch."""

from collections.abc import Sequence

import numpy as np

from qle.data.annotations import Annotation
from qle.eval.moments.ranked import RankedQuery
from qle.segments.ranked import Candidates
from qle.types import ScoreTrack

CLIP_S = 2.0


def track_of(scores: Sequence[float] | np.ndarray, clip_s: float = CLIP_S) -> ScoreTrack:
    logit = np.asarray(scores, np.float32)
    edges = np.arange(len(logit) + 1) * clip_s
    return ScoreTrack(times_s=edges[:-1], edges_s=edges, valid=np.isfinite(logit), logit=logit)


def ranked_query(
    windows: Sequence[tuple[float, float]],
    spans: Sequence[tuple[float, float, float]],
    *,
    qid: str = "0",
    video: str = "a.mp4",
    duration_s: float = 40.0,
    saliency: np.ndarray | None = None,
    scores: Sequence[float] | np.ndarray | None = None,
    is_labelled: bool = True,
) -> RankedQuery:
    """`spans`: (start, end, log-odds)."""
    start, end, logit = np.array(spans, float).reshape(-1, 3).T
    num_clips = int(duration_s / CLIP_S)
    return RankedQuery(
        annotation=Annotation(
            qid=qid, video=video, query=f"query {qid}", windows=tuple(windows), duration_s=duration_s,
            saliency=saliency, is_labelled=is_labelled,
        ),
        video=video,
        candidates=Candidates(
            start_s=start, end_s=end, logit=logit, window=np.zeros(len(start), np.int64), duration_s=duration_s,
            track=track_of(np.zeros(num_clips) if scores is None else scores),
        ),
    )  # fmt: skip


def made_rankings(num_queries: int = 30, *, seed: int = 0, duration_s: float = 150.0) -> list[RankedQuery]:
    """Spans near the windows and others anywhere, rated clips, a tenth of the queries absent."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(num_queries):
        starts = rng.uniform(0, 100, rng.integers(1, 4))
        windows = [(float(a), float(a + b)) for a, b in zip(starts, rng.choice([5, 20, 45], len(starts)), strict=True)]
        near = [(a + rng.normal(), b + rng.normal(), rng.normal(2, 1)) for a, b in windows]
        anywhere = np.sort(rng.uniform(0, duration_s, (6, 2)), axis=1)
        spans = near + [(a, b + 0.5, rng.normal()) for a, b in anywhere]
        num_clips = int(duration_s / CLIP_S)
        ratings = rng.integers(0, 5, (num_clips, 3)).astype(np.float32)
        made.append(
            ranked_query(
                windows if number % 10 else [], spans, qid=str(number), video=f"{number // 2}.mp4", saliency=ratings,
                scores=ratings.mean(axis=1) + rng.normal(size=num_clips), duration_s=duration_s,
            )
        )  # fmt: skip
    return made
