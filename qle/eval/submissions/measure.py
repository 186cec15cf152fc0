"""Predictions as rows of a file -> a report, by the protocols that need nothing else. No torch, no run, no cache.

    --predictions FILE (JSONL, QVHighlights submission format) + --annotations FILE -> moments | charades | qvhighlights

Moments of runs go the same way (moment_evaluation.py), so a run is measured exactly as the file that `qle localize` writes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation, read_annotations
from qle.data.readers import charades_sta
from qle.data.readlog import ReadLog
from qle.errors import ConfigError
from qle.eval.moments.report import Beside, report_of
from qle.eval.report import Report
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest
from qle.eval.submissions.answers import submitted_answers
from qle.eval.submissions.charades import charades_report
from qle.eval.submissions.odd_rows import Asked, odd_rows
from qle.eval.submissions.official_report import official_report
from qle.eval.submissions.rows import Row, checked_numbers, read_rows

DEFAULT = "moments"
CHARADES_SUFFIX = ".txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true, of one annotation file."""

    path: Path
    annotations: Sequence[Annotation]
    rows: Sequence[Row]
    """As they stand in the file, where a benchmark's own program would read them."""
    absent: frozenset[str] = frozenset()
    """Queries of the file that are not in `rows`, since that program knows no query that never happens."""


def read_truth(path: Path, protocol: str) -> Truth:
    """The neutral JSONL; under charades also the published `VIDEO start end##sentence` lines, numbered from 0."""
    if protocol == "qvhighlights":
        return _without_absent(path, read_rows(path))
    if protocol == "charades" and path.suffix == CHARADES_SUFFIX:
        return Truth(path=path, annotations=charades_sta.read(path, ReadLog()), rows=())
    return Truth(path=path, annotations=read_annotations(path, allow_unlabelled=True), rows=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is measured."""

    rows: Sequence[Row]
    name: str
    """For messages."""
    span: tuple[float, float] | None = None
    """The best constant one of the training annotations, if known."""
    settings: Mapping[str, Any]
    """Where the rows come from."""


def measure_rows(
    protocol: str, truth: Truth, said: Said, request: EvaluationRequest
) -> tuple[Mapping[str, Any] | None, Report]:
    """What the official program prints, where there is one, and the report."""
    return MEASURES[protocol](truth, said, request)


def evaluate_file(request: EvaluationRequest, path: Path) -> Evaluation:
    """ConfigError for a protocol that needs a run."""
    protocol = request.protocol or DEFAULT
    if protocol not in MEASURES:
        raise ConfigError(f"--protocol {protocol} measures runs; a file of predictions goes with {', '.join(MEASURES)}")
    if request.space is not None:
        raise ConfigError(f"--space {request.space}: a file of predictions is measured without a cache")
    rows = read_rows(path)
    truth = read_truth(request.annotations, protocol)
    settings = {"predictions": str(path), "annotations": str(request.annotations)}
    official, report = measure_rows(protocol, truth, Said(rows=rows, name=str(path), settings=settings), request)
    counts, first_rows = odd_rows(rows, _asked(truth))
    report = replace(
        report,
        counts={**report.counts, **counts},
        settings={**report.settings, **({"odd_rows": first_rows} if first_rows else {})},
    )
    return Evaluation(protocol=protocol, runs=(EvaluatedRun(folder=path, report=report, official=official),))


def _moments(truth: Truth, said: Said, request: EvaluationRequest) -> tuple[None, Report]:
    submitted = submitted_answers(truth.annotations, said.rows, name=said.name, allow_missing=request.allow_missing)
    return None, report_of(
        submitted.table, submitted.answers, _beside(said, request), counts=submitted.counts, settings=said.settings
    )


def _charades(truth: Truth, said: Said, request: EvaluationRequest) -> tuple[None, Report]:
    return None, charades_report(
        truth.annotations,
        said.rows,
        _beside(said, request),
        name=said.name,
        allow_missing=request.allow_missing,
        provenance=said.settings,
    )


def _official(truth: Truth, said: Said, request: EvaluationRequest) -> tuple[Mapping[str, Any], Report]:
    official, report = official_report(
        truth.rows,
        [row for row in said.rows if str(row.get("qid")) not in truth.absent],
        match_number=not request.allow_missing,
        names=(str(truth.path), said.name),
        span=said.span,
        seed=request.seed,
        published=request.published,
        provenance=said.settings,
    )
    return official, replace(report, counts={**report.counts, "absent_left_out": len(truth.absent)})


def _without_absent(path: Path, rows: Sequence[Row]) -> Truth:
    """The official protocol knows no query that never happens: such are left out."""
    absent = {
        str(row.get("qid")) for row in rows if row.get("relevant_windows") == [] and not row.get("saliency_scores")
    }
    kept = [row for row in rows if str(row.get("qid")) not in absent]
    return Truth(path=path, annotations=(), rows=kept or rows, absent=frozenset(absent if kept else ()))


def _asked(truth: Truth) -> Asked:
    """What predictions may be compared with."""
    if truth.rows:
        lengths = {str(row.get("qid")): checked_numbers([row.get("duration")]) for row in truth.rows}
        return {
            str(row.get("qid")): (
                vid if isinstance(vid := row.get("vid"), str) else None,
                None if known is None else float(known[0]),
            )
            for row in truth.rows
            for known in [lengths[str(row.get("qid"))]]
        }
    return {annotation.qid: (annotation.video, annotation.duration_s) for annotation in truth.annotations}


def _beside(said: Said, request: EvaluationRequest) -> Beside:
    return Beside(span=said.span, num_bootstrap=request.num_bootstrap, seed=request.seed)


MEASURES: Mapping[str, Callable[[Truth, Said, EvaluationRequest], tuple[Mapping[str, Any] | None, Report]]] = {
    "moments": _moments,
    "charades": _charades,
    "qvhighlights": _official,
}
"""By protocol."""
