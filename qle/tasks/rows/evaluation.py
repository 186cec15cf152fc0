"""Runs of heads that score rows, by the protocol of rows: score every row, measure.

runs + space + annotations --(predict)--> ScoredQuery --(eval/evaluate)--> a Report a run
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qle.cache.reader import Space
from qle.data.annotations import Annotation, read_annotations
from qle.data.lookup import match_videos
from qle.errors import CheckpointError
from qle.eval.floors import Novelty, Priors, novelty
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, OnProgress, Runs
from qle.eval.rows.report import evaluate
from qle.heads.rows import RowHead
from qle.runs.load import load_run
from qle.runs.record import RunRecord
from qle.runs.spaces import space_of
from qle.runtime import resolve_device
from qle.tasks.rows.scoring import RowScorer, score_annotations


def evaluate_rows(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    annotations = read_annotations(request.annotations)
    spaces = [space_of(request.cache_folder, record, request.space) for _, record in runs]
    missing: dict[str, None] = {}
    for space in spaces:
        missing |= dict.fromkeys(match_videos(space, annotations, allow_missing=request.allow_missing)[1])
    measured = tuple(
        _evaluate(folder, record, space, annotations, request, on_progress)
        for (folder, record), space in zip(runs, spaces, strict=True)
    )
    return Evaluation(protocol="rows", runs=measured, missing=tuple(missing))


def row_scorer(folder: Path, device: str) -> RowScorer:
    """Of a run whose head scores rows."""
    resolved = resolve_device(device)
    run = load_run(folder, resolved)
    if not isinstance(run.head, RowHead):
        raise CheckpointError(f"{folder}: head {run.record.head} gives no score to rows")
    return RowScorer(run.head, run.text, device=resolved, rate_fps=run.record.rate_fps, known=run.known)


def _evaluate(
    folder: Path,
    record: RunRecord,
    space: Space,
    annotations: list[Annotation],
    request: EvaluationRequest,
    on_progress: OnProgress | None,
) -> EvaluatedRun:
    scored = score_annotations(
        row_scorer(folder, request.device), space, annotations, allow_missing=request.allow_missing,
        on_progress=on_progress,
    )  # fmt: skip
    priors = None if record.priors is None else Priors.from_json(record.priors)
    keys = {one.annotation.video: one.video for one in scored}
    new = None if priors is None else novelty([one.annotation for one in scored], priors, keys)
    report = evaluate(
        scored,
        record.localization,
        priors=priors,
        num_bootstrap=request.num_bootstrap,
        seed=request.seed,
        provenance=_provenance(folder, record, space, request, new),
    )
    return EvaluatedRun(folder=folder, report=report, novelty=new)


def _provenance(
    folder: Path, record: RunRecord, space: Space, request: EvaluationRequest, new: Novelty | None
) -> Mapping[str, Any]:
    return {
        "checkpoint": str(folder),
        "weights": dict(record.digests),
        "cache": str(request.cache),
        "space": f"{space.record.name}-{space.record.hash[:12]}",
        "annotations": str(request.annotations),
        "rate_fps": record.rate_fps,
        **({} if new is None else asdict(new)),
    }
