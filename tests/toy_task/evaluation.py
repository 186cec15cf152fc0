"""How often the best frame lies inside a window, of the queries that happen."""

import numpy as np

from qle.data.annotations import read_annotations
from qle.eval.report import Metric, Report
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.runs.load import load_run
from qle.runtime import resolve_device
from qle.tasks.answering import AnsweringOptions, answerer_of
from qle.tasks.evaluation import RunToMeasure, missing_of, open_runs
from qle.types import OnProgress, Query


def evaluate_toy(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    opened = open_runs(request, runs, read_annotations(request.annotations))
    return Evaluation(protocol="toy", runs=tuple(_evaluate(run, request) for run in opened), missing=missing_of(opened))


def _evaluate(run: RunToMeasure, request: EvaluationRequest) -> EvaluatedRun:
    options = AnsweringOptions(device=resolve_device(request.device))
    answerer = answerer_of(load_run(run.folder, options.device), options)
    hits = []
    for key, annotations in run.by_key.items():
        present = [one for one in annotations if one.is_present]
        answers = answerer.predictions(run.videos.video(key), [Query(text=one.query) for one in present])
        for one, answer in zip(present, answers, strict=True):
            middle_s = (answer.moments[0].start_s + answer.moments[0].end_s) / 2
            hits.append(any(start_s <= middle_s <= end_s for start_s, end_s in one.windows))
    report = Report(
        metrics={"toy": {"hit": Metric(value=float(np.mean(hits)))}},
        per_query=(),
        counts={"videos": len(run.by_key), "pairs": len(hits)},
        protocol={"toy": "hit: the best frame lies inside a window."},
        settings=run.provenance(request, {}),
    )
    return EvaluatedRun(folder=run.folder, report=report, novelty=run.novelty)
