"""Runs of heads that rank videos, one after the other: retrieval_evaluation.py for each, as `qle eval` shows them."""

from dataclasses import fields

from qle.eval.floors import Novelty
from qle.eval.report import Report
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, OnProgress, Runs
from qle.tasks.retrieval.evaluation import RetrievalProtocol, evaluate_retrieval


def evaluate_ranking(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    protocol = RetrievalProtocol(
        with_dsl=request.with_dsl,
        published_leaking_score=request.published_leaking_score,
        num_bootstrap=request.num_bootstrap,
        seed=request.seed,
    )
    measured = []
    for folder, _ in runs:
        report = evaluate_retrieval(
            folder, request.cache_folder, request.annotations, protocol, allow_missing=request.allow_missing,
            device=request.device, on_progress=on_progress,
        )  # fmt: skip
        measured.append(EvaluatedRun(folder=folder, report=report, novelty=_novelty(report)))
    missing = tuple(measured[0].report.settings["missing_videos"])
    return Evaluation(protocol="retrieval", runs=tuple(measured), missing=missing)


def _novelty(report: Report) -> Novelty | None:
    """The report holds it among its settings, where the run knows what it was trained on."""
    names = [field.name for field in fields(Novelty)]
    found = {name: report.settings[name] for name in names if name in report.settings}
    return Novelty(**found) if len(found) == len(names) else None
