"""Runs of heads that rank videos, by the protocol "retrieval": every text is scored with every video, and measured.

    run + cache + annotations --(scoring.py)--> similarity --(eval/retrieval.py)--> a Report of each run

The gallery is the videos that the annotations name, those included that nothing is true of. Nothing is fitted here.
"""

from collections.abc import Sequence
from pathlib import Path

from qle.cache.reader import open_cache
from qle.data.annotations import Annotation, read_annotations
from qle.data.pairs import pair_table
from qle.errors import AnnotationError, CheckpointError
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.eval.retrieval import retrieval_report
from qle.heads.retrieval import RetrievalHead
from qle.runs.load import load_run
from qle.runs.record import RunRecord, check_space
from qle.runtime import resolve_device
from qle.tasks.evaluation import novelty_of, provenance_of
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.scoring import VideoRanker
from qle.types import OnProgress


def evaluate_retrieval(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    """Every run by its ranks, beside chance. Captions need no times: rows without `relevant_windows` count."""
    annotations = read_annotations(request.annotations, allow_unlabelled=True)
    sources = [_frames(folder, record, request) for folder, record in runs]
    measured: list[EvaluatedRun] = []
    missing: dict[str, None] = {}
    for (folder, record), frames in zip(runs, sources, strict=True):
        run, names = _evaluate(folder, record, frames, annotations, request, on_progress)
        measured.append(run)
        missing |= dict.fromkeys(names)
    return Evaluation(protocol="retrieval", runs=tuple(measured), missing=tuple(missing))


def _evaluate(
    folder: Path, record: RunRecord, frames: FrameSource, annotations: Sequence[Annotation],
    request: EvaluationRequest, on_progress: OnProgress | None,
) -> tuple[EvaluatedRun, Sequence[str]]:  # fmt: skip
    """The numbers of a run, and the names that no video has. Progress in videos."""
    by_key, missing = frames.match(annotations, allow_missing=request.allow_missing)
    pairs = pair_table(by_key)
    if len(pairs.videos) < 2:
        raise AnnotationError(
            f"{request.annotations}: all annotations are of {pairs.videos[0]!r}: there is nothing to rank"
        )
    ranker = _ranker(folder, frames, request.device)
    similarity = ranker.similarity(pairs.queries, pairs.videos, on_progress)
    leaking = None
    if request.published_leaking_score:
        texts = [pairs.queries[query] for query in pairs.query.tolist()]
        leaking = ranker.published_leaking_similarity(texts, pairs.video, pairs.videos)
    where = {
        "space": f"{frames.space.record.name}-{frames.space.record.hash[:12]}",
        "stream": frames.stream,
        "num_frames": frames.num_frames,
    }
    new = novelty_of(record, by_key)
    report = retrieval_report(
        similarity[pairs.query],
        pairs,
        with_dsl=request.with_dsl,
        leaking=leaking,
        num_bootstrap=request.num_bootstrap,
        seed=request.seed,
        provenance=provenance_of(folder, record, request, where, {"missing_videos": list(missing)}, new),
    )
    return EvaluatedRun(folder=folder, report=report, novelty=new), missing


def _frames(folder: Path, record: RunRecord, request: EvaluationRequest) -> FrameSource:
    if record.recipe is None:
        raise CheckpointError(f"{folder}: head {record.head} ranks no videos")
    frames = FrameSource.from_recipe(open_cache(request.cache_folder), record.recipe)
    check_space(record, frames.space)
    return frames


def _ranker(folder: Path, frames: FrameSource, device: str) -> VideoRanker:
    resolved = resolve_device(device)
    run = load_run(folder, resolved)
    assert isinstance(run.head, RetrievalHead), run.head.name
    return VideoRanker(run.head, run.text, frames, device=resolved)
