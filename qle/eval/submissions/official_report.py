"""The numbers of QVHighlights as a report: beside each its floors, and where its program errs, the number without the fault.

    rows of annotations + rows of predictions -> the dict that the official program prints, Report

The floors go through the same protocol as predictions: the best constant stretch, the whole video, random stretches.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import numpy as np

from qle.errors import AnnotationError
from qle.eval.floors import best_span
from qle.eval.report import Metric, Report
from qle.eval.submissions.qvhighlights import evaluate_submission
from qle.eval.submissions.rows import CLIP_S, MOST_WINDOWS, SALIENCY, WINDOWS, Row, checked_numbers

NUM_UNIFORM_DRAWS = 3
PROTOCOL = {
    "official": "As the program of QVHighlights prints them, in percent: moments by the first ten windows (mAP) or the first "
    "(R1), highlights by clips of 2 s.",
    "without_faults": "Where that differs: clips without a score come last instead of counting 0, queries without prediction "
    "count as misses, windows without length hit nothing.",
    "floors": "best_span: the stretch, relative to the length, that is right most often, for every query. whole_video. uniform: "
    "ten random stretches, mean of three draws. Clips: one inside, all the same, at random.",
}


def official_report(
    ground_truth: Sequence[Row],
    predictions: Sequence[Row],
    *,
    match_number: bool = True,
    names: tuple[str, str],
    span: tuple[float, float] | None = None,
    seed: int = 0,
    published: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Report]:
    """AnnotationError for what `evaluate_submission` refuses in either mode; with `published` only for that at which the official
    program stops, and then the report has no numbers without its faults. `span`: the best one of the training annotations."""
    measure = partial(evaluate_submission, ground_truth, predictions, match_number=match_number, names=names)
    honest = {} if published else _without_faults(measure)
    official = measure(published=True)
    pairs = _shared(ground_truth, predictions)
    lengths = checked_numbers([true.get("duration") for true, _ in pairs])
    chosen, floors = span or (0.0, 1.0), {}
    if lengths is not None and (lengths > 0).all():
        if span is None:
            windows = [true.get("relevant_windows") or () for true, _ in pairs]
            chosen = best_span(list(zip(windows, lengths.tolist(), strict=True)))
        truth = list({row["qid"]: row for row, _ in pairs}.values())
        floors = _floors(truth, pairs[0][1].keys() & {WINDOWS, SALIENCY}, chosen, seed, published=published)
    groups = {
        "official": _metrics(official["brief"], floors),
        "without_faults": _metrics(
            {name: value for name, value in honest.get("brief", {}).items() if value != official["brief"][name]}, {}
        ),
    }
    report = Report(
        metrics={name: metrics for name, metrics in groups.items() if metrics},
        per_query=(),
        counts=_counts(ground_truth, predictions, pairs),
        protocol={name: text for name, text in PROTOCOL.items() if groups.get(name, True)},
        settings={
            "best_span": list(chosen),
            "best_span_from": "the evaluated annotations" if span is None else "training",
            "seed": seed,
            **(provenance or {}),
        },
    )
    return official, report


def _without_faults(measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What the default mode says; where it refuses what the official program measures, its error names the way."""
    try:
        return measure()
    except AnnotationError as refusal:
        try:
            measure(published=True)
        except AnnotationError:
            raise refusal from None
        raise AnnotationError(
            f"{refusal}\nor pass --published: the official program measures this file all the same"
        ) from None


def check_truth(ground_truth: Sequence[Row], name: str, *, with_clips: bool) -> None:
    """AnnotationError for what this protocol cannot measure, whatever is answered: before anybody scores hours of video for it.

    `name`: of the file. `with_clips`: highlights will be measured too.
    """
    answer: dict[str, Any] = {WINDOWS: [[0.0, 1.0, 1.0]], **({SALIENCY: [0.0]} if with_clips else {})}
    evaluate_submission(ground_truth, [{"qid": row.get("qid"), **answer} for row in ground_truth], names=(name, name))


def _metrics(brief: Mapping[str, float], floors: Mapping[str, Mapping[str, float]]) -> dict[str, Metric]:
    return {
        name: Metric(value=value, floors={floor: values[name] for floor, values in floors.items()})
        for name, value in brief.items()
    }


def _shared(ground_truth: Sequence[Row], predictions: Sequence[Row]) -> list[tuple[Row, Row]]:
    """What is true and what is said, in the order of the predictions, whose first row decides what is measured."""
    true = {row["qid"]: row for row in ground_truth}
    return [(true[row["qid"]], row) for row in predictions if row["qid"] in true]


def _floors(
    truth: Sequence[Row], keys: Set[str], span: tuple[float, float], seed: int, *, published: bool
) -> dict[str, dict[str, float]]:
    """The brief of each floor, with the parts that the predictions have."""
    rng = np.random.default_rng(seed)
    answers = {
        "best_span": [[_constant(row, span, keys) for row in truth]],
        "whole_video": [[_constant(row, (0.0, 1.0), keys) for row in truth]],
        "uniform": [[_random(row, rng, keys) for row in truth] for _ in range(NUM_UNIFORM_DRAWS)],
    }
    floors = {}
    for name, draws in answers.items():
        briefs = [evaluate_submission(truth, rows, published=published)["brief"] for rows in draws]
        floors[name] = {metric: float(np.mean([brief[metric] for brief in briefs])) for metric in briefs[0]}
    return floors


def _constant(row: Row, span: tuple[float, float], keys: Set[str]) -> Row:
    start, end = (row["duration"] * part for part in span)
    answer: dict[str, Any] = {"qid": row["qid"]}
    if WINDOWS in keys:
        answer[WINDOWS] = [[start, end, 1.0]]
    if SALIENCY in keys:
        middle = (np.arange(int(row["duration"] / CLIP_S)) + 0.5) * CLIP_S
        answer[SALIENCY] = ((start <= middle) & (middle < end)).astype(float).tolist()
    return answer


def _random(row: Row, rng: np.random.Generator, keys: Set[str]) -> Row:
    answer: dict[str, Any] = {"qid": row["qid"]}
    if WINDOWS in keys:
        ends = np.sort(rng.random((MOST_WINDOWS, 2)), axis=1) * row["duration"]
        answer[WINDOWS] = np.concatenate([ends, rng.random((MOST_WINDOWS, 1))], axis=1).tolist()
    if SALIENCY in keys:
        answer[SALIENCY] = rng.random(int(row["duration"] / CLIP_S)).tolist()
    return answer


def _counts(
    ground_truth: Sequence[Row], predictions: Sequence[Row], pairs: Sequence[tuple[Row, Row]]
) -> dict[str, int]:
    asked, said = ({row["qid"] for row in rows} for rows in (ground_truth, predictions))
    counts = {
        "pairs": len(asked & said),
        "videos": len({str(true.get("vid", true["qid"])) for true, _ in pairs}),
        "unanswered": len(asked - said),
        "unasked": len(said - asked),
        "repeated_rows": len(predictions) - len(said),
    }
    first = pairs[0][1]
    if SALIENCY in first:
        counts["queries_with_clips_without_score"] = sum(
            len(said.get(SALIENCY, ())) < int(true["duration"] / CLIP_S) for true, said in pairs
        )
    if WINDOWS in first:
        windows = (window for _, said in pairs for window in said[WINDOWS][:MOST_WINDOWS])
        counts["windows_without_length"] = sum(window[0] == window[1] for window in windows)
    return counts
