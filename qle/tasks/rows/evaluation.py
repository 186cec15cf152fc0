"""Runs of heads that score rows, by the protocol "rows": every row of a video is scored, and measured.

run + space + annotations --(scoring.py)--> ScoredQuery --(eval/rows/report.py)--> a Report of each run
"""

from collections.abc import Sequence

from qle.data.annotations import Annotation, read_annotations
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.eval.rows.report import evaluate
from qle.heads.rows import RowHead
from qle.runs.load import load_run
from qle.runtime import resolve_device
from qle.tasks.evaluation import RunToMeasure, missing_of, open_runs, provenance_of
from qle.tasks.rows.scoring import RowScorer, score_matched
from qle.types import OnProgress


def evaluate_rows(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    """Every run by the scores of its rows, beside the floors of its training annotations."""
    annotations = read_annotations(request.annotations)
    opened = open_runs(request, runs, annotations)
    measured = tuple(_evaluate(run, annotations, request, on_progress) for run in opened)
    return Evaluation(protocol="rows", runs=measured, missing=missing_of(opened))


def _evaluate(
    run: RunToMeasure, annotations: Sequence[Annotation], request: EvaluationRequest, on_progress: OnProgress | None
) -> EvaluatedRun:
    device = resolve_device(request.device)
    loaded = load_run(run.folder, device)
    assert isinstance(loaded.head, RowHead), run.record.head
    scorer = RowScorer(loaded.head, loaded.text, device=device, rate_fps=run.record.rate_fps)
    where, beside = {"space": run.space_names[0]}, {"rate_fps": run.record.rate_fps}
    report = evaluate(
        score_matched(scorer, run.videos.spaces[0], run.by_key, annotations, on_progress=on_progress),
        run.record.localization,
        priors=run.priors,
        num_bootstrap=request.num_bootstrap,
        seed=request.seed,
        provenance=provenance_of(run.folder, run.record, request, where, beside, run.novelty),
    )
    return EvaluatedRun(folder=run.folder, report=report, novelty=run.novelty)
