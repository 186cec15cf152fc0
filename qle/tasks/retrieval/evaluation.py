"""A trained run that ranks videos, on a cache and an annotation file: score every text with every video, measure.

    run + cache + annotations --(predict_retrieval)--> similarity --(eval/retrieval)--> Report

The gallery is the videos that the annotations name, those included that nothing is true of. Nothing is fitted here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qle.cache.reader import open_cache
from qle.data.annotations import Annotation, read_annotations
from qle.data.pairs import pair_table
from qle.errors import AnnotationError, CheckpointError
from qle.eval.floors import Novelty, Priors, novelty
from qle.eval.report import Report
from qle.eval.retrieval import retrieval_report
from qle.runs.load import load_run
from qle.runs.record import RunRecord, check_space, read_run
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.scoring import VideoRanker
from qle.tasks.scoring import OnProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalProtocol:
    """What is measured."""

    with_dsl: bool = False
    """Also with the dual softmax, for which every text knows what the others ask."""
    published_leaking_score: bool = False
    """parity: also as T-MASS was evaluated when it was published. That score knows the answer: no measure of retrieval."""
    num_bootstrap: int = 1000
    seed: int = 0
    """Of the resampling."""


def evaluate_retrieval(
    run_folder: Path,
    cache: Path,
    annotations: Path,
    protocol: RetrievalProtocol | None = None,
    *,
    allow_missing: bool = False,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Report:
    """What `qle eval` says about a run of a head that ranks videos. The fields of its Novelty stand in `Report.settings`.

    Captions need no times: rows without `relevant_windows` count. Progress in videos.
    """
    protocol = protocol or RetrievalProtocol()
    record = read_run(run_folder)
    frames = _frames(run_folder, record, cache)
    by_key, missing = frames.match(read_annotations(annotations, allow_unlabelled=True), allow_missing=allow_missing)
    pairs = pair_table(by_key)
    if len(pairs.videos) < 2:
        raise AnnotationError(f"{annotations}: all annotations are of {pairs.videos[0]!r}: there is nothing to rank")
    ranker = _ranker(run_folder, frames, device)
    similarity = ranker.similarity(pairs.queries, pairs.videos, on_progress)
    leaking = None
    if protocol.published_leaking_score:
        texts = [pairs.queries[query] for query in pairs.query.tolist()]
        leaking = ranker.published_leaking_similarity(texts, pairs.video, pairs.videos)
    provenance = {
        "checkpoint": str(run_folder),
        "weights": dict(record.digests),
        "cache": str(cache),
        "space": f"{frames.space.record.name}-{frames.space.record.hash[:12]}",
        "stream": frames.stream,
        "num_frames": frames.num_frames,
        "annotations": str(annotations),
        "missing_videos": list(missing),
    }
    new = _novelty(record.priors, by_key)
    return retrieval_report(
        similarity[pairs.query],
        pairs,
        with_dsl=protocol.with_dsl,
        leaking=leaking,
        num_bootstrap=protocol.num_bootstrap,
        seed=protocol.seed,
        provenance=provenance | ({} if new is None else asdict(new)),
    )


def _frames(run_folder: Path, record: RunRecord, cache: Path) -> FrameSource:
    from qle.heads import head_class

    if record.recipe is None or head_class(record.head).task != "retrieval":
        raise CheckpointError(f"{run_folder}: head {record.head} ranks no videos")
    frames = FrameSource.from_recipe(open_cache(cache), record.recipe)
    check_space(record, frames.space)
    return frames


def _ranker(run_folder: Path, frames: FrameSource, device: str) -> VideoRanker:
    from qle.heads.retrieval import RetrievalHead
    from qle.runtime import resolve_device

    resolved = resolve_device(device)
    run = load_run(run_folder, resolved)
    assert isinstance(run.head, RetrievalHead), run.head.name
    return VideoRanker(run.head, run.text, frames, device=resolved)


def _novelty(priors: Mapping[str, Any] | None, by_key: Mapping[str, Sequence[Annotation]]) -> Novelty | None:
    """How much was new to the run; None where it does not know what it was trained on."""
    if priors is None:
        return None
    keys = {one.video: key for key, annotations in by_key.items() for one in annotations}
    asked = [one for annotations in by_key.values() for one in annotations]
    return novelty(asked, Priors.from_json(priors), keys)
