"""How long metrics take: a whole report, one pooled AUROC, a thousand resamples, the fit of the constants. No head, no torch.

    python benchmarks/evaluate.py [--videos 100] [--queries 15] [--rows 2400] [--json]

Scores are made up: normal logits, higher where the query happens, a third of the pairs absent. Seconds are CPU seconds, since
the machine may be shared. The limit of everything that ranks is one np.argsort of the pooled scores; a report ranks the head
and four floors, each three times pooled (rows, calibration twice) and once pair by pair. Memory: 1.5 GB by default.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from qle.data.annotations import Annotation
from qle.eval.bootstrap import drawn, histograms, video_draws
from qle.eval.floors import priors_of
from qle.eval.ranking import auroc, auroc_of, rank
from qle.eval.rows.fitting import fit_localization
from qle.eval.rows.report import evaluate
from qle.eval.rows.scored import ScoredQuery
from qle.types import ScoreTrack

AUROC_ROWS = 10_000_000


def made(num_videos: int, num_queries: int, rows: int) -> list[ScoredQuery]:
    rng = np.random.default_rng(0)
    lines = np.arange(rows + 1.0)
    scored = []
    for video in range(num_videos):
        for query in range(num_queries):
            windows: tuple[tuple[float, float], ...] = ()
            logit = rng.normal(-1.5, 1, rows).astype(np.float32)
            if rng.random() > 1 / 3:
                start = float(rng.integers(0, int(rows * 0.8)))
                stop = start + float(rng.integers(int(rows * 0.05) + 1, int(rows * 0.2) + 1))
                windows = ((start, stop),)
                logit[int(start) : int(stop)] += 3
            annotation = Annotation(
                qid=f"{video}-{query}",
                video=f"{video}",
                query=f"query {query}",
                windows=windows,
                duration_s=float(rows),
            )
            track = ScoreTrack(times_s=lines[:-1], edges_s=lines, valid=np.ones(rows, dtype=bool), logit=logit)
            scored.append(ScoredQuery(annotation=annotation, video=str(video), track=track))
    return scored


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def measure(num_videos: int, num_queries: int, rows: int) -> dict[str, float]:
    scored = made(num_videos, num_queries, rows)
    priors = priors_of([one.annotation for one in scored])
    small = made(50, 10, 100)
    localization = fit_localization(small)
    rng = np.random.default_rng(1)
    labels = rng.random(AUROC_ROWS) < 0.1
    scores = (rng.normal(size=AUROC_ROWS) + labels).astype(np.float32)
    video = np.arange(AUROC_ROWS) * 100 // AUROC_ROWS
    counts = histograms(rank(scores), labels, video, 100)
    pooled = np.concatenate([one.track.logit for one in scored])
    return {
        "rows": len(pooled),
        "report_s": seconds(lambda: evaluate(scored, localization, priors=priors), 1),
        "argsort_s": seconds(lambda: np.argsort(pooled)),
        "auroc_10m_s": seconds(lambda: auroc_of(scores, labels)),
        "argsort_10m_s": seconds(lambda: np.argsort(scores)),
        "resamples_1000_s": seconds(lambda: auroc(drawn(video_draws(100, 1000, seed=0), counts))),
        "fit_500x100_s": seconds(lambda: fit_localization(small)),
        "fit_report_s": seconds(lambda: fit_localization(scored), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.videos, options.queries, options.rows)
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
        return
    print(
        f"report of {found['rows']:,} rows       {found['report_s']:.2f} s   (one argsort {found['argsort_s']:.2f} s)"
    )
    print(
        f"AUROC of {AUROC_ROWS:,} rows       {found['auroc_10m_s']:.2f} s   (one argsort {found['argsort_10m_s']:.2f} s)"
    )
    print(f"1,000 resamples of its histograms {found['resamples_1000_s']:.2f} s")
    print(
        f"fit of 500 queries x 100 rows     {found['fit_500x100_s']:.2f} s, of the report's {found['fit_report_s']:.2f} s"
    )


if __name__ == "__main__":
    main()
