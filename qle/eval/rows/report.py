"""Scored queries to a Report: frame, segment, calibration and absent-query numbers, with intervals and floors.

    scored + Localization (from validation) + Priors (from training) -> Report

Nothing is fitted in this file: thresholds come from the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from qle.eval.absent import absent_metrics
from qle.eval.bootstrap import LEVEL, video_draws
from qle.eval.floors import Priors
from qle.eval.report import Metric, Report
from qle.eval.rows.answers import Answers, floor_answers, head_answers
from qle.eval.rows.frames import frame_metrics
from qle.eval.rows.per_query import query_rows
from qle.eval.rows.reliability import calibration_metrics
from qle.eval.rows.scored import RowTable, ScoredQuery, row_table
from qle.eval.rows.segments import segment_metrics
from qle.eval.windows import Windows
from qle.segments.tracks import Localization

PROTOCOL = {
    "rows": "A row is relevant if windows cover at least half of its stretch of time; unusable rows are left out.",
    "frame": "Scores of rows after smoothing; ties count half (AUROC) or as one group (AP). f1: probability >= threshold. "
    "macro: mean over (video, query) pairs with relevant and other rows.",
    "segment": "Moments of all pairs pooled; greedy matching by score within a pair, each window once. map: interpolated "
    "AP, mean over tIoU 0.1-0.9, pooled ranking; map_per_query: the same for each present query alone, then the mean. r1, "
    "miou: best moment of each present query against the window it overlaps most; where no row reaches the threshold, the "
    "rows around the peak at least half as probable. start_error_s, end_error_s: mean distance, of moments matched at 0.5.",
    "calibration": "Probability of each row against its label: 15 bins (ece: equal width, adaptive_ece: equal mass); aurc: "
    "error at 0.5, ordered by |p - 0.5|.",
    "absent": "false_alarm_rate: absent queries with at least one moment; miss_rate: present queries with none; "
    "false_alarms_at_10_misses: absent queries whose presence reaches what 90 % of the present ones reach; "
    "rejection_f1: presence < 0.5 as finding an absent query.",
    "floors": "constant: whole video (calibration: base rate of training, or 0.5; rejection: all). position: relative time in "
    "training annotations. query_rate: how often a query happens in training, whatever the video. query_blind: mean "
    "probability over all queries asked of a video (of a video with one query, the head itself).",
    "interval": f"{LEVEL:.0%} percentile interval, resampling videos; ranking metrics from score histograms (error < 0.002).",
}


def evaluate(
    scored: Sequence[ScoredQuery],
    localization: Localization,
    *,
    priors: Priors | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """AnnotationError where there is nothing to measure. `provenance` (run, space, annotations) goes into the settings."""
    table = row_table(scored)
    windows = Windows.of([query.annotation.windows for query in scored])
    draws = video_draws(len(table.videos), num_bootstrap, seed) if num_bootstrap and len(table.videos) > 1 else None
    own = head_answers(scored, table, localization)
    groups = _measure(own, table, windows, draws)
    floors = floor_answers(scored, table, own.log_odds, localization, priors)
    measured = {name: _measure(answers, table, windows, None) for name, answers in floors.items()}
    return Report(
        metrics={
            group: {name: _beside(metric, group, name, measured) for name, metric in entries.items()}
            for group, entries in groups.items()
        },
        per_query=query_rows(scored, table, own.frame, own.segment, windows, own.has_moment),
        counts=_counts(scored, table, windows, own),
        protocol=PROTOCOL,
        settings={
            "localization": asdict(localization),
            "num_bootstrap": num_bootstrap if draws is not None else 0,
            "seed": seed,
            **(provenance or {}),
        },
    )


def _measure(
    answers: Answers, table: RowTable, windows: Windows, draws: np.ndarray | None
) -> dict[str, dict[str, Metric]]:
    metrics = {
        "frame": frame_metrics(table, answers.frame, draws),
        "segment": segment_metrics(answers.segment, windows, table.video, draws),
        "calibration": calibration_metrics(table, answers.log_odds, draws),
    }
    is_present = windows.counts > 0
    metrics["absent"] = absent_metrics(answers.presence, answers.has_moment, is_present, table.video, draws)
    return metrics


def _beside(
    metric: Metric, group: str, name: str, measured: Mapping[str, Mapping[str, Mapping[str, Metric]]]
) -> Metric:
    floors = {floor: groups[group][name].value for floor, groups in measured.items() if group in groups}
    return replace(metric, floors=floors)


def _counts(scored: Sequence[ScoredQuery], table: RowTable, windows: Windows, own: Answers) -> dict[str, int]:
    """What took part, and what could not and why."""
    is_present = windows.counts > 0
    relevant = np.add.reduceat((table.label & table.usable).astype(np.int64), table.first[:-1])
    usable = np.add.reduceat(table.usable.astype(np.int64), table.first[:-1])
    return {
        "videos": len(table.videos),
        "pairs": table.num_pairs,
        "queries": len({query.annotation.query for query in scored}),
        "rows": len(table.owner),
        "relevant_rows": int(relevant.sum()),
        "windows": len(windows.owner),
        "videos_with_one_query": int((np.bincount(table.video) == 1).sum()),
        "absent_pairs": int((~is_present).sum()),
        "guessed_pairs": int((is_present & ~own.has_moment).sum()),
        "skipped_rows_not_usable": int((~table.usable).sum()),
        "skipped_macro_absent": int((~is_present).sum()),
        "skipped_macro_windows_below_half_a_row": int((is_present & (relevant == 0)).sum()),
        "skipped_macro_always_relevant": int(((relevant == usable) & (usable > 0)).sum()),
    }
