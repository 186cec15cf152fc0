"""Runs of any task that answers queries, by the protocols that measure predictions; and what all evaluations of runs share.

    run + cache + annotations -> Answerer -> Predictions -> rows of a submission -> eval/submissions/measure.py -> Report

The rows are those that `qle localize --format jsonl` writes, so that a run is measured exactly as the file of its answers.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qle.data.annotations import Annotation
from qle.eval.floors import Novelty, Priors, novelty
from qle.eval.moments.answers import moment_table
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.eval.submissions.measure import Said, Truth, measure_rows, read_truth
from qle.eval.submissions.official_report import check_truth
from qle.eval.submissions.rows import SALIENCY, Row, read_rows
from qle.eval.submissions.write import to_jsonl
from qle.runs.load import load_run
from qle.runs.record import RunRecord
from qle.runs.videos import RunVideos
from qle.runtime import resolve_device
from qle.tasks.answering import Answerer, AnsweringOptions, answerer_of
from qle.types import OnProgress, Prediction, Query

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToMeasure:
    """A run, and the annotations that are asked of it, by the key of their video in its spaces."""

    folder: Path
    record: RunRecord
    videos: RunVideos
    by_key: Mapping[str, Sequence[Annotation]]
    missing: Sequence[str]
    """Names of the annotations that no video has; their annotations are left out."""

    @property
    def priors(self) -> Priors | None:
        """What can be guessed from the training annotations; None where nobody knows what the run was trained on."""
        return None if self.record.priors is None else Priors.from_json(self.record.priors)

    @property
    def novelty(self) -> Novelty | None:
        """How much of the annotations was new to the run."""
        return novelty_of(self.record, self.by_key)

    def asked(self, annotations: Sequence[Annotation]) -> list[tuple[Annotation, str]]:
        """Those of the annotations that have a video, in their order, each with its key."""
        keys = {id(annotation): key for key, of_video in self.by_key.items() for annotation in of_video}
        return [(annotation, keys[id(annotation)]) for annotation in annotations if id(annotation) in keys]

    @property
    def space_names(self) -> list[str]:
        return [f"{space.record.name}-{space.record.hash[:12]}" for space in self.videos.spaces]

    def provenance(self, request: EvaluationRequest, beside: Mapping[str, Any]) -> dict[str, Any]:
        """Where the numbers come from. beside: what only this protocol knows."""
        return provenance_of(self.folder, self.record, request, {"spaces": self.space_names}, beside, self.novelty)


def provenance_of(
    folder: Path, record: RunRecord, request: EvaluationRequest, where: Mapping[str, Any], beside: Mapping[str, Any],
    new: Novelty | None,
) -> dict[str, Any]:  # fmt: skip
    """Where the numbers of an evaluated run come from. where: the space or spaces; beside: what only the protocol knows."""
    return {
        "checkpoint": str(folder),
        "weights": dict(record.digests),
        "cache": str(request.cache),
        **where,
        "annotations": str(request.annotations),
        **beside,
        **({} if new is None else asdict(new)),
    }


def novelty_of(record: RunRecord, by_key: Mapping[str, Sequence[Annotation]]) -> Novelty | None:
    """How much of the annotations was new to a run; None where it does not know what it was trained on."""
    if record.priors is None:
        return None
    keys = {annotation.video: key for key, annotations in by_key.items() for annotation in annotations}
    asked = [annotation for annotations in by_key.values() for annotation in annotations]
    return novelty(asked, Priors.from_json(record.priors), keys)


def evaluate_predictions(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    """Every run by the protocol of the request: moments, charades or qvhighlights."""
    protocol = request.protocol or "moments"
    truth = read_truth(request.annotations, "charades" if protocol == "charades" else "moments")
    if protocol == "qvhighlights":
        truth = Truth(path=truth.path, annotations=truth.annotations, rows=read_rows(request.annotations))
    opened = open_runs(request, runs, truth.annotations)
    check_measurable(opened, truth)
    measured = tuple(_evaluate(run, truth, request, protocol, on_progress) for run in opened)
    return Evaluation(protocol=protocol, runs=measured, missing=missing_of(opened))


def open_runs(request: EvaluationRequest, runs: Runs, annotations: Sequence[Annotation]) -> list[RunToMeasure]:
    """Every run with its videos found: whatever is wrong with one is said before another is scored."""
    return [_open(folder, record, annotations, request) for folder, record in runs]


def check_measurable(opened: Sequence[RunToMeasure], truth: Truth) -> None:
    """AnnotationError for annotations that can be answered and not measured: before they are answered."""
    for run in opened:
        kept = [annotation for annotation, _ in run.asked(truth.annotations)]
        moment_table(kept, [annotation.video for annotation in kept], [math.nan] * len(kept))
        if truth.rows:
            rows = _rows_about(truth, kept)
            check_truth(rows, str(truth.path), with_clips=_is_rated(rows))


def missing_of(opened: Sequence[RunToMeasure]) -> tuple[str, ...]:
    """Videos of the annotations that some run does not find."""
    return tuple(dict.fromkeys(name for run in opened for name in run.missing))


def _open(
    folder: Path, record: RunRecord, annotations: Sequence[Annotation], request: EvaluationRequest
) -> RunToMeasure:
    videos = RunVideos.open(request.cache_folder, record, request.space)
    by_key, missing = videos.match(annotations, allow_missing=request.allow_missing)
    for note in videos.notes:
        log.warning("%s: %s", folder, note)
    return RunToMeasure(folder=folder, record=record, videos=videos, by_key=by_key, missing=missing)


def _evaluate(
    run: RunToMeasure, truth: Truth, request: EvaluationRequest, protocol: str, on_progress: OnProgress | None
) -> EvaluatedRun:
    """The run as the file that would hold its predictions."""
    asked = run.asked(truth.annotations)
    options = AnsweringOptions(device=resolve_device(request.device), keeps_all=True)
    answerer = answerer_of(load_run(run.folder, options.device), options)
    answered = _answered(run, answerer, on_progress)
    said = [answered[id(annotation)] for annotation, _ in asked]
    # How long a video is stands in the cache where annotations do not say it; without that there are no floors.
    annotations = [
        annotation if annotation.duration_s is not None else replace(annotation, duration_s=prediction.duration_s)
        for (annotation, _), prediction in zip(asked, said, strict=True)
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
            name=str(run.folder),
            span=None if run.priors is None else run.priors.span,
            settings=run.provenance(request, answerer.constants()),
        ),
        request,
    )
    return EvaluatedRun(folder=run.folder, report=report, novelty=run.novelty, official=official)


def _answered(run: RunToMeasure, answerer: Answerer, on_progress: OnProgress | None) -> dict[int, Prediction]:
    """What the run says, by the identity of the annotation that asks."""
    asked = [
        (run.videos.video(key), [Query(text=annotation.query, qid=annotation.qid) for annotation in annotations])
        for key, annotations in run.by_key.items()
    ]
    answers = answerer.predictions_of_videos(asked, on_progress)
    return {
        id(annotation): prediction
        for annotations, predictions in zip(run.by_key.values(), answers, strict=True)
        for annotation, prediction in zip(annotations, predictions, strict=True)
    }


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
        {key: value for key, value in row.items() if is_rated or key != SALIENCY} | {"qid": qids[str(prediction.qid)]}
        for row, prediction in zip(rows, said, strict=True)
    ]
