"""Runs of heads that answer with spans, by the protocol "moments": their ranked spans are measured as they are.

run + streams + annotations --(scoring.py)--> RankedQuery -> eval/moments/report.py -> a Report of each run
"""

from collections.abc import Sequence
from dataclasses import asdict

from qle.data.annotations import Annotation
from qle.eval.moments.report import evaluate_ranked
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.eval.submissions.measure import read_truth
from qle.heads.moments import MomentHead
from qle.runs.load import load_run
from qle.runtime import resolve_device
from qle.segments.ranked import Ranking
from qle.tasks.evaluation import RunToMeasure, check_measurable, missing_of, open_runs
from qle.tasks.moments.scoring import MomentScorer, score_matched
from qle.types import OnProgress


def evaluate_moments(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    """Every run by its own ranked spans, beside the floors of its training annotations."""
    truth = read_truth(request.annotations, "moments")
    opened = open_runs(request, runs, truth.annotations)
    check_measurable(opened, truth)
    measured = tuple(_evaluate(run, truth.annotations, request, on_progress) for run in opened)
    return Evaluation(protocol="moments", runs=measured, missing=missing_of(opened))


def _evaluate(
    run: RunToMeasure, annotations: Sequence[Annotation], request: EvaluationRequest, on_progress: OnProgress | None
) -> EvaluatedRun:
    device = resolve_device(request.device)
    loaded = load_run(run.folder, device)
    assert isinstance(loaded.head, MomentHead), run.record.head
    assert run.videos.streams is not None, run.record.head
    scorer = MomentScorer(loaded.head, loaded.text, run.videos.streams, device=device)
    ranking = run.record.ranking or Ranking()
    report = evaluate_ranked(
        score_matched(scorer, run.by_key, annotations, on_progress=on_progress),
        ranking,
        priors=run.priors,
        num_bootstrap=request.num_bootstrap,
        seed=request.seed,
        provenance=run.provenance(request, {"ranking": asdict(ranking)}),
    )
    return EvaluatedRun(folder=run.folder, report=report, novelty=run.novelty)
