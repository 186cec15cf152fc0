"""Runs by the protocols of moments: heads that answer with spans, and heads that score rows, from which moments are cut.

    run + spaces + annotations -> RankedQuery -> eval/ranked_report                      (moments, of heads with spans)
                               -> Prediction -> rows of a submission -> submission_evaluation    (everything else)

The rows are those that `qle localize --format jsonl` writes, so that both ways give the same numbers.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qle.cache.reader import Space
from qle.data.annotations import Annotation
from qle.data.lookup import match_videos
from qle.data.streams.features import StreamSet
from qle.errors import CheckpointError, ConfigError
from qle.eval.floors import Novelty, Priors, novelty
from qle.eval.moments.answers import moment_table
from qle.eval.moments.report import evaluate_ranked
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, OnProgress, Runs
from qle.eval.submissions.measure import Said, Truth, measure_rows, read_truth
from qle.eval.submissions.official_report import check_truth
from qle.eval.submissions.rows import SALIENCY, Row, read_rows
from qle.eval.submissions.write import to_jsonl
from qle.heads import head_class
from qle.heads.moments import MomentHead
from qle.runs.load import load_run
from qle.runs.record import RunRecord
from qle.runs.spaces import space_of, spaces_of, streams_of
from qle.runtime import resolve_device
from qle.segments.ranked import Ranking
from qle.tasks.moments.scoring import MomentScorer, score_annotations
from qle.tasks.moments.scoring import predict as predict_moments
from qle.tasks.rows.evaluation import row_scorer
from qle.tasks.rows.scoring import predict
from qle.tasks.rows.scoring import score_annotations as score_rows
from qle.types import Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A run whose spaces are found and fit."""

    folder: Path
    record: RunRecord
    spaces: tuple[Space, ...]
    streams: StreamSet | None
    """None for a head that scores rows."""
    missing: Sequence[str]


def evaluate_moments(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    protocol = request.protocol or "moments"
    truth = read_truth(request.annotations, "charades" if protocol == "charades" else "moments")
    if protocol == "qvhighlights":
        truth = Truth(path=truth.path, annotations=truth.annotations, rows=read_rows(request.annotations))
    opened = [_open(folder, record, truth.annotations, request) for folder, record in runs]
    for one in opened:
        _check_measurable(one, truth)
    measured = tuple(_evaluate(one, truth, request, protocol, on_progress) for one in opened)
    missing = dict.fromkeys(name for one in opened for name in one.missing)
    return Evaluation(protocol=protocol, runs=measured, missing=tuple(missing))


def _open(folder: Path, record: RunRecord, annotations: Sequence[Annotation], request: EvaluationRequest) -> _Opened:
    cache = request.cache_folder
    if head_class(record.head).task == "rows":
        space = space_of(cache, record, request.space)
        _, missing = match_videos(space, annotations, allow_missing=request.allow_missing)
        return _Opened(folder=folder, record=record, spaces=(space,), streams=None, missing=missing)
    if request.space is not None:
        raise ConfigError(f"--space {request.space}: {folder} finds the spaces that it was trained on by itself")
    if record.recipe is None:
        raise CheckpointError(f"{folder}: the run does not say how its features are made\nimport or train it again")
    spaces = spaces_of(cache, record)
    streams = streams_of(record, spaces)
    _, names = streams.match(annotations, allow_missing=request.allow_missing)
    for note in streams.notes:
        log.warning("%s: %s", folder, note)
    return _Opened(folder=folder, record=record, spaces=spaces, streams=streams, missing=names)


def _check_measurable(one: _Opened, truth: Truth) -> None:
    """AnnotationError for annotations that can be answered and not measured: before they are answered."""
    left_out = set(one.missing)
    kept = [annotation for annotation in truth.annotations if annotation.video not in left_out]
    moment_table(kept, [annotation.video for annotation in kept], [math.nan] * len(kept))
    if truth.rows:
        rows = _rows_about(truth, kept)
        check_truth(rows, str(truth.path), with_clips=_is_rated(rows))


def _evaluate(
    one: _Opened, truth: Truth, request: EvaluationRequest, protocol: str, on_progress: OnProgress | None
) -> EvaluatedRun:
    """Moments of a head with spans are measured as they are, everything else as rows of a submission."""
    priors = None if one.record.priors is None else Priors.from_json(one.record.priors)
    if one.streams is None:
        scored = score_rows(
            row_scorer(one.folder, request.device), one.spaces[0], truth.annotations,
            allow_missing=request.allow_missing, on_progress=on_progress,
        )  # fmt: skip
        asked = [(each.annotation, each.video) for each in scored]
        constants = one.record.localization
        said = [
            predict(each.video, each.annotation.query, each.track, constants, each.annotation.qid) for each in scored
        ]
        return _measured(one, truth, request, protocol, priors, asked, said)
    ranking = one.record.ranking or Ranking()
    ranked = score_annotations(
        _moment_scorer(one.folder, one.streams, request.device), truth.annotations,
        allow_missing=request.allow_missing, on_progress=on_progress,
    )  # fmt: skip
    asked = [(each.annotation, each.video) for each in ranked]
    if protocol == "moments":
        new = _novelty(priors, asked)
        report = evaluate_ranked(
            ranked,
            ranking,
            priors=priors,
            num_bootstrap=request.num_bootstrap,
            seed=request.seed,
            provenance=_provenance(one, request, new),
        )
        return EvaluatedRun(folder=one.folder, report=report, novelty=new)
    said = [
        predict_moments(each.video, each.annotation.query, each.candidates, ranking, each.annotation.qid)
        for each in ranked
    ]
    return _measured(one, truth, request, protocol, priors, asked, said)


def _measured(
    one: _Opened,
    truth: Truth,
    request: EvaluationRequest,
    protocol: str,
    priors: Priors | None,
    asked: Sequence[tuple[Annotation, str]],
    said: Sequence[Prediction],
) -> EvaluatedRun:
    """As the file that would hold these predictions."""
    new = _novelty(priors, asked)
    # How long a video is stands in the cache where annotations do not say it; without that there are no floors.
    annotations = [
        annotation if annotation.duration_s is not None else replace(annotation, duration_s=one_said.duration_s)
        for (annotation, _), one_said in zip(asked, said, strict=True)
    ]
    rows = [json.loads(line) for line in to_jsonl(said).splitlines()]
    true_rows = _rows_about(truth, annotations)
    if true_rows:
        rows = _as_asked(rows, said, true_rows)
    official, report = measure_rows(
        protocol,
        Truth(path=truth.path, annotations=annotations, rows=true_rows),
        Said(
            rows=rows,
            name=str(one.folder),
            span=None if priors is None else priors.span,
            settings=_provenance(one, request, new),
        ),
        request,
    )
    return EvaluatedRun(folder=one.folder, report=report, novelty=new, official=official)


def _rows_about(truth: Truth, annotations: Sequence[Annotation]) -> list[Row]:
    qids = {annotation.qid for annotation in annotations}
    return [row for row in truth.rows if str(row.get("qid")) in qids]


def _is_rated(rows: Sequence[Row]) -> bool:
    return all(row.get("saliency_scores") and row.get("relevant_clip_ids") for row in rows)


def _as_asked(rows: Sequence[Row], said: Sequence[Prediction], true_rows: Sequence[Row]) -> list[Row]:
    """qids as the annotation file writes them; no saliency where clips are not rated there."""
    qids = {str(row["qid"]): row["qid"] for row in true_rows}
    is_rated = _is_rated(true_rows)
    return [
        {key: value for key, value in row.items() if is_rated or key != SALIENCY} | {"qid": qids[str(one.qid)]}
        for row, one in zip(rows, said, strict=True)
    ]


def _moment_scorer(folder: Path, streams: StreamSet, device: str) -> MomentScorer:
    resolved = resolve_device(device)
    run = load_run(folder, resolved)
    if not isinstance(run.head, MomentHead):
        raise CheckpointError(f"{folder}: head {run.record.head} does not answer with spans")
    return MomentScorer(run.head, run.text, streams, device=resolved)


def _novelty(priors: Priors | None, asked: Sequence[tuple[Annotation, str]]) -> Novelty | None:
    keys = {annotation.video: video for annotation, video in asked}
    return None if priors is None else novelty([annotation for annotation, _ in asked], priors, keys)


def _provenance(one: _Opened, request: EvaluationRequest, new: Novelty | None) -> Mapping[str, Any]:
    record = one.record
    constants = (
        {"localization": asdict(record.localization)}
        if one.streams is None
        else {"ranking": asdict(record.ranking or Ranking())}
    )
    return {
        "checkpoint": str(one.folder),
        "weights": dict(record.digests),
        "cache": str(request.cache),
        "spaces": [f"{space.record.name}-{space.record.hash[:12]}" for space in one.spaces],
        "annotations": str(request.annotations),
        **constants,
        **({} if new is None else asdict(new)),
    }
