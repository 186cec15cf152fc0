"""Ranked moments to a Report: R1, R5, mAP, mIoU, classes of length, highlights, absent queries, with intervals and floors.

    ranked + Ranking (from the run) + Priors (from training) -> Report

Nothing is fitted in this file. The same functions measure the head, a file of predictions and the floors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qle.errors import ConfigError
from qle.eval.absent import absent_metrics
from qle.eval.bootstrap import LEVEL, interval, mean_draws, video_draws
from qle.eval.floors import Priors, best_span
from qle.eval.moments.answers import MomentAnswers, MomentTable, floor_draws, ranked_answers, ranked_table
from qle.eval.moments.metrics import CLASSES, Values, highlight_values, in_class, moment_values
from qle.eval.moments.ranked import RankedQuery
from qle.eval.ranking import mean_known
from qle.eval.report import Metric, Report
from qle.segments.ranked import Ranking

NUM_UNIFORM_DRAWS = 10
PROTOCOL = {
    "moments": "Of present queries. rN@m: one of the first N spans overlaps a window by tIoU >= m. map: average precision of "
    "each query's own list of at most ten spans (interpolated, each window once), mean over tIoU 0.5-0.95, then over queries. "
    "miou: best overlap of the first span. short, middle, long: only windows of at most 10 s, at most 30 s, more; queries "
    "without any are left out.",
    "highlights": "Clips as rated. fair, good, very_good: a rating of 2, 3, 4 or more is positive; map over raters, hit1: any "
    "rater likes the best clip (of equals their mean); clips without a score come last. top5_map, where there are more than "
    "three raters: precision among the best five clips against each rater's own median.",
    "absent": "false_alarm_rate: absent queries with a moment that people are shown; miss_rate: present queries without; "
    "rejection_f1: presence < 0.5 as finding an absent query.",
    "floors": "best_span: the stretch, relative to the length, that is right most often in the training annotations, for every "
    "query. whole_video. uniform: ten random stretches, mean of ten draws.",
    "interval": f"{LEVEL:.0%} percentile interval, resampling videos.",
}
Measure = Callable[[MomentTable, MomentAnswers], Values]
MEASURES: dict[str, Measure] = {"moments": moment_values, "highlights": highlight_values}
VALIDATION_METRICS = {
    "mAP": "map", "mIoU": "miou", "R1@0.3": "r1@0.3", "R1@0.5": "r1@0.5", "R1@0.7": "r1@0.7",
    "HL-mAP": "very_good_map", "HIT@1": "very_good_hit1", "top5-mAP": "top5_map",
}  # fmt: skip
"""What may choose the best step of a training."""


def evaluate_ranked(
    ranked: Sequence[RankedQuery],
    ranking: Ranking,
    *,
    priors: Priors | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """AnnotationError where there is nothing to measure. `provenance` (run, spaces, annotations) goes into the settings."""
    table = ranked_table(ranked)
    beside = Beside(span=None if priors is None else priors.span, num_bootstrap=num_bootstrap, seed=seed)
    settings = {"ranking": asdict(ranking), **(provenance or {})}
    return report_of(table, ranked_answers(ranked, ranking, table), beside, settings=settings)


def validation_value(ranked: Sequence[RankedQuery], metric: str = "mAP") -> float:
    """One of VALIDATION_METRICS, before anything is fitted; NaN where no annotation can tell it."""
    name = VALIDATION_METRICS.get(metric)
    if name is None:
        raise ConfigError(f"validation by {metric!r}: choose one of {', '.join(VALIDATION_METRICS)}")
    if not ranked:
        return float("nan")
    table = ranked_table(ranked)
    answers = ranked_answers(ranked, Ranking(), table)
    is_of_clips = metric in ("HL-mAP", "HIT@1", "top5-mAP")
    values = highlight_values(table, answers) if is_of_clips else moment_values(table, answers)
    return mean_known(values.get(name, np.full(1, np.nan)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What stands beside the numbers."""

    span: tuple[float, float] | None = None
    """The best constant one of the training annotations, in parts of the video. None: the best one of what is measured
    stands in, which no constant can beat."""
    num_bootstrap: int = 1000
    seed: int = 0


def report_of(
    table: MomentTable,
    answers: MomentAnswers,
    beside: Beside,
    *,
    measures: Mapping[str, Measure] = MEASURES,
    protocol: Mapping[str, str] = PROTOCOL,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any],
) -> Report:
    """Groups of numbers by name, each from its measure. `counts`, `settings`: what the caller knows besides."""
    has_draws = beside.num_bootstrap > 0 and len(table.videos) > 1
    draws = video_draws(len(table.videos), beside.num_bootstrap, beside.seed) if has_draws else None
    span = own_best_span(table) if beside.span is None else beside.span
    floors = floor_draws(table, span, num_draws=NUM_UNIFORM_DRAWS, seed=beside.seed)
    groups = {name: _group(measure, table, answers, floors, draws) for name, measure in measures.items()}
    groups["absent"] = _absent(table, answers, floors, draws)
    groups = {name: metrics for name, metrics in groups.items() if metrics}
    return Report(
        metrics=groups,
        per_query=(),
        counts={**_counts(table), **(counts or {})},
        protocol={name: text for name, text in protocol.items() if name in (*groups, "floors", "interval")},
        settings={
            "num_bootstrap": beside.num_bootstrap if has_draws else 0,
            "seed": beside.seed,
            "best_span": list(span),
            "best_span_from": "the evaluated annotations" if beside.span is None else "training",
            **settings,
        },
    )


def _group(
    measure: Measure,
    table: MomentTable,
    answers: MomentAnswers,
    floors: Mapping[str, Sequence[MomentAnswers]],
    draws: np.ndarray | None,
) -> dict[str, Metric]:
    """Empty where no pair has any of these numbers."""
    values = measure(table, answers)
    if not any(np.isfinite(part).any() for part in values.values()):
        return {}
    beside = {name: _mean_values([measure(table, draw) for draw in some]) for name, some in floors.items()}
    return {
        name: Metric(
            value=mean_known(own),
            interval=None if draws is None else interval(mean_draws(draws, own, table.video)),
            floors={floor: mean_known(some[name]) for floor, some in beside.items()},
        )
        for name, own in values.items()
    }


def own_best_span(table: MomentTable) -> tuple[float, float]:
    """The best span for the very queries that are measured: no constant answer is right more often."""
    lengths = table.duration_s.tolist()
    pairs = zip(table.annotations, lengths, strict=True)
    return best_span([(annotation.windows, length) for annotation, length in pairs if np.isfinite(length)])


def _mean_values(some: Sequence[Values]) -> Values:
    return {name: np.mean([values[name] for values in some], axis=0) for name in some[0]}


def _absent(
    table: MomentTable, answers: MomentAnswers, floors: Mapping[str, Sequence[MomentAnswers]], draws: np.ndarray | None
) -> dict[str, Metric]:
    """Empty where no query is absent: then there is nothing to find."""
    labelled = table.is_labelled
    is_present = table.windows.counts > 0
    if answers.presence is None or answers.has_moment is None or is_present[labelled].all():
        return {}
    used = is_present[labelled], table.video[labelled]
    metrics = absent_metrics(answers.presence[labelled], answers.has_moment[labelled], *used, draws)
    floor = absent_metrics(np.zeros(labelled.sum()), np.ones(labelled.sum(), dtype=bool), *used, None)
    return {
        name: Metric(
            value=metric.value,
            interval=metric.interval,
            floors={"whole_video": floor[name].value} if "whole_video" in floors else {},
        )
        for name, metric in metrics.items()
    }


def _counts(table: MomentTable) -> dict[str, int]:
    is_present = table.windows.counts > 0
    per_class = {
        f"{name}_pairs": len(np.unique(table.windows.owner[in_class(table.windows, name)])) for name in CLASSES
    }
    return {
        "videos": len(table.videos),
        "pairs": table.num_pairs,
        "queries": len({annotation.query for annotation in table.annotations}),
        "windows": len(table.windows.owner),
        "present_pairs": int(is_present.sum()),
        "absent_pairs": int((table.is_labelled & ~is_present).sum()),
        **per_class,
        "rated_pairs": len(table.rated),
        "skipped_moments_not_labelled": int((~table.is_labelled).sum()),
    }
