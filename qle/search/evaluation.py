"""Search of a corpus, measured: which videos, which moments in the right video, and both in one list.

    retriever + localizer + cache + annotations -> eval/corpus.py -> Report (videos, shortlist, oracle, chain, ablations)

The corpus is the videos that the annotations name, those included that nothing is true of. Every distinct text is asked once;
it is right in all videos that it (or its concept) is annotated in. Searching and measuring share their code (qle/search), so
what is measured is what `qle search` does. With --fit the weights of both stages are chosen on these annotations and written
down; the chain is then measured with them, and says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qle.data.annotations import Annotation, Window, read_annotations
from qle.data.lookup import match_keys
from qle.data.negatives import united_concepts
from qle.data.rows import extent_s
from qle.errors import AnnotationError, ConfigError
from qle.eval.corpus import CorpusAnswers, CorpusList, CorpusTruth, Values, chain_values, corpus_metrics
from qle.eval.floors import Novelty, Priors, novelty
from qle.eval.moments.report import Beside
from qle.eval.request import EvaluatedRun, Evaluation, EvaluationRequest, Runs
from qle.eval.retrieval import Ranks
from qle.runs.record import RunRecord
from qle.runtime import resolve_device
from qle.search.fusion import (
    Fusion,
    fit_temperature,
    fit_weight,
    fuse,
    read_fusion,
    settings_of,
    write_fusion,
)
from qle.search.moments import LocatedMoments, MomentSearch
from qle.search.request import check_depths
from qle.search.run import gathered, identities
from qle.search.videos import QUERIES_PER_PASS, RankedVideos, VideoSearch, best_of, open_search, ordered
from qle.types import OnProgress

RECALL_DEPTHS = (1, 20)
SHORTLISTS = (10, 50, 100, 500, 1000)
"""Lengths whose recall is told beside that of the one in use."""
ABLATED = ("r1@0.5", "r10@0.5", "r1@0.7", "r10@0.7")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Corpus:
    """What is asked, and what stage 1 says."""

    videos: VideoSearch
    truth: Sequence[CorpusTruth]
    """Keys are those of the retriever's space."""
    queries: Sequence[str]
    gallery: np.ndarray
    """Places of the videos in the index, rising."""
    similarity: np.ndarray
    """(queries, gallery) float32: of every pair, exactly."""
    is_right: np.ndarray
    """(queries, gallery) bool"""
    shortlists: Mapping[int, Sequence[np.ndarray]]
    """By length: of each query the numbers of its videos in the gallery."""
    ranked: Sequence[RankedVideos]
    """Through the shortlist."""


def evaluate_corpus(request: EvaluationRequest, runs: Runs, on_progress: OnProgress | None = None) -> Evaluation:
    if request.retriever is None:
        raise ConfigError("--protocol corpus needs a run that ranks videos as well: pass --retriever RUN")
    if request.space is not None:
        raise ConfigError(f"--space {request.space}: runs of a corpus search find their spaces by themselves")
    check_depths(top_videos=request.top_videos, shortlist=request.shortlist)
    if request.fit is not None and len(runs) > 1:
        raise ConfigError(f"--fit {request.fit}: weights are fitted for one localizer, and {len(runs)} are given")
    device = resolve_device(request.device)
    annotations = read_annotations(request.annotations, allow_unlabelled=True)
    searches = [MomentSearch(folder, request.cache_folder, device=device) for folder, _ in runs]
    videos = open_search(request.retriever, request.cache_folder, device=device, on_progress=on_progress)
    by_key, missing = match_keys(
        set(videos.index.number_of_key), videos.index.space, annotations, lambda key: (np.inf, 0.0),
        allow_missing=request.allow_missing,
    )  # fmt: skip
    corpus = _scored(videos, by_key, request, on_progress)
    measured = tuple(
        _evaluate(corpus, folder, record, moments, by_key, request, on_progress)
        for (folder, record), moments in zip(runs, searches, strict=True)
    )
    return Evaluation(protocol="corpus", runs=measured, missing=tuple(missing))


def _scored(
    videos: VideoSearch,
    by_key: Mapping[str, Sequence[Annotation]],
    request: EvaluationRequest,
    on_progress: OnProgress | None,
) -> _Corpus:
    if len(by_key) < 2:
        raise AnnotationError(f"{request.annotations}: all annotations are of one video: there is no corpus to search")
    truth = truth_of(by_key, lambda key: float(np.diff(extent_s(videos.index.frames_of.space.video(key)))[0]))
    queries = tuple(true.qid for true in truth)
    gallery = np.array(sorted(videos.index.number_of_key[key] for key in by_key), dtype=np.int64)
    similarity = videos.similarity(queries, gallery, on_progress)
    names = [videos.index.key(number) for number in gallery.tolist()]
    is_right = np.array([[name in true.windows for name in names] for true in truth])
    shortlists = _shortlists(videos, queries, gallery, request.shortlist)
    held = shortlists[min(request.shortlist, len(gallery))]
    ranked = [ordered(gallery[shortlist], own[shortlist]) for shortlist, own in zip(held, similarity, strict=True)]
    return _Corpus(
        videos=videos, truth=truth, queries=queries, gallery=gallery, similarity=similarity, is_right=is_right,
        shortlists=shortlists, ranked=ranked,
    )  # fmt: skip


def _shortlists(
    videos: VideoSearch, queries: Sequence[str], gallery: np.ndarray, shortlist: int
) -> dict[int, list[np.ndarray]]:
    """Shortlists of the length in use and of others."""
    size = len(gallery)
    lengths = sorted({length for length in SHORTLISTS if length < size} | {min(shortlist, size)})
    lists_of_length: dict[int, list[np.ndarray]] = {length: [] for length in lengths}
    for first in range(0, len(queries), QUERIES_PER_PASS):
        rough = videos.rough(queries[first : first + QUERIES_PER_PASS], gallery)
        for length, lists in lists_of_length.items():
            lists += [best_of(own, length) for own in rough]
    return lists_of_length


def truth_of(by_key: Mapping[str, Sequence[Annotation]], length_of: Callable[[str], float]) -> list[CorpusTruth]:
    """One for each distinct text, which stands as its qid; its own video first. AnnotationError where nothing is true."""
    flat = [(key, annotation) for key, annotations in by_key.items() for annotation in annotations]
    united = united_concepts([annotation for _, annotation in flat])
    where: dict[str, dict[str, list[Window]]] = {}
    own: dict[str, tuple[str, str]] = {}
    absent = {
        (key, annotation.concept_key) for (key, _), annotation in zip(flat, united, strict=True) if annotation.is_absent
    }
    for (key, _), annotation in zip(flat, united, strict=True):
        if annotation.windows or (key, annotation.concept_key) not in absent:
            where.setdefault(annotation.concept_key, {}).setdefault(key, []).extend(annotation.windows)
            own.setdefault(annotation.query, (annotation.concept_key, key))
    if not own:
        raise AnnotationError(
            f"none of the {len(flat)} annotations says what is in its video: there is nothing to find"
        )
    lengths = {key: length_of(key) for windows_of_key in where.values() for key in windows_of_key}
    truth = []
    for query, (concept, first) in own.items():
        keys = sorted(where[concept], key=lambda key, first=first: (key != first, key))  # type: ignore[misc]
        windows = {key: tuple(sorted(set(where[concept][key]))) for key in keys}
        truth.append(CorpusTruth(qid=query, windows=windows, durations_s={key: lengths[key] for key in keys}))
    return truth


def _evaluate(
    corpus: _Corpus,
    folder: Path,
    record: RunRecord,
    moments: MomentSearch,
    by_key: Mapping[str, Sequence[Annotation]],
    request: EvaluationRequest,
    on_progress: OnProgress | None,
) -> EvaluatedRun:
    located = moments.locate(_asked(corpus, request.top_videos), on_progress)
    chain = _Chain(corpus, located.moments, request.top_videos)
    fusion = _fusion(corpus, chain, moments, request)
    priors = None if record.priors is None else Priors.from_json(record.priors)
    keys = {annotation.video: key for key, rows in by_key.items() for annotation in rows}
    asked = [annotation for rows in by_key.values() for annotation in rows]
    new: Novelty | None = None if priors is None else novelty(asked, priors, keys)
    answers = _answers(corpus, chain, fusion)
    report = corpus_metrics(
        corpus.truth,
        answers,
        num_videos=len(corpus.gallery),
        beside=Beside(
            span=None if priors is None else priors.span, num_bootstrap=request.num_bootstrap, seed=request.seed
        ),
        provenance=_provenance(corpus, folder, record, fusion, request)
        | {"videos_not_localized": dict(located.failures)}
        | ({} if new is None else asdict(new)),
    )
    counts = {**report.counts, "videos_not_localized": len(located.failures)}
    retriever = corpus.videos.run.record.priors
    if retriever is not None:
        counts["videos_of_retriever"] = novelty(asked, Priors.from_json(retriever), keys).num_trained_videos
    counts["queries_fitted_on"] = len(corpus.queries) if request.fit is not None else 0
    return EvaluatedRun(folder=folder, report=replace(report, counts=counts), novelty=new)


def _answers(corpus: _Corpus, chain: "_Chain", fusion: Fusion) -> CorpusAnswers:
    """The answers of both stages, of the chain, and of what stands beside it."""
    return CorpusAnswers(
        videos=_ranks(corpus),
        oracle=[chain.oracle(number) for number in range(len(corpus.queries))],
        chain=chain.lists(fusion),
        more={
            "shortlist": _shortlist_values(corpus),
            "chain_video_only": _ablation(corpus, chain, replace(fusion, weight=1.0)),
            "chain_moment_only": _ablation(corpus, chain, replace(fusion, weight=0.0)),
        },
    )


def _asked(corpus: _Corpus, top_videos: int) -> dict[str, list[str]]:
    """By video, the queries that are asked there: each of its best videos, and of the right one."""
    asked: dict[str, list[str]] = {}
    for text, ranked, true in zip(corpus.queries, corpus.ranked, corpus.truth, strict=True):
        best = (corpus.videos.index.key(number) for number in ranked.numbers[:top_videos].tolist())
        for key in dict.fromkeys([*best, next(iter(true.windows))]):
            asked.setdefault(key, []).append(text)
    return asked


class _Chain:
    """Lists of moments over all videos, whatever the weights."""

    def __init__(self, corpus: _Corpus, moments: Mapping[tuple[str, str], LocatedMoments], top_videos: int) -> None:
        self._corpus, self._moments = corpus, moments
        self._best = [
            [corpus.videos.index.key(number) for number in ranked.numbers[:top_videos].tolist()]
            for ranked in corpus.ranked
        ]

    def lists(self, fusion: Fusion) -> list[CorpusList]:
        return [self._list(number, fusion) for number in range(len(self._best))]

    def oracle(self, number: int) -> CorpusList:
        """The list that the right video alone would give."""
        video = next(iter(self._corpus.truth[number].windows))
        located = self._moments.get((video, self._corpus.queries[number]))
        if located is None:
            return CorpusList(videos=(), start_s=np.zeros(0), end_s=np.zeros(0), score=np.zeros(0))
        return CorpusList(
            videos=[video] * len(located.probability),
            start_s=located.start_s,
            end_s=located.end_s,
            score=located.probability,
        )

    def _list(self, number: int, fusion: Fusion) -> CorpusList:
        best, query = self._best[number], self._corpus.queries[number]
        by_video = [self._moments.get((video, query)) for video in best]
        scored = gathered(by_video)
        fused = fuse(scored, self._corpus.ranked[number].similarity, fusion)
        known = [located for located in by_video if located is not None]
        start_s, end_s = (
            np.concatenate([getattr(located, name) for located in known]) if known else np.zeros(0)
            for name in ("start_s", "end_s")
        )
        return CorpusList(
            videos=[best[video] for video in scored.video[fused.order].tolist()],
            start_s=start_s[fused.order],
            end_s=end_s[fused.order],
            score=-fused.level.astype(np.float64),  # what is equal in everything is a tie, and nothing else
        )


def _fusion(corpus: _Corpus, chain: _Chain, moments: MomentSearch, request: EvaluationRequest) -> Fusion:
    if request.fusion is not None:
        return read_fusion(request.fusion, identities(corpus.videos, moments))
    if request.fit is None:
        return Fusion()
    temperature = fit_temperature(list(corpus.similarity), list(corpus.is_right))
    values: dict[float, dict[str, float]] = {}

    def value_at(weight: float) -> tuple[float, ...]:
        chain_numbers = chain_values(corpus.truth, chain.lists(Fusion(weight=weight, temperature=temperature)))
        values[weight] = {name: _mean(own) for name, own in chain_numbers.items()}
        return tuple(values[weight][name] for name in ("r1@0.5", "r5@0.5", "r10@0.5", "r1@0.7"))

    if not any(any(true.windows.values()) for true in corpus.truth):
        raise AnnotationError(f"--fit: no annotation of {request.annotations} says when anything happens")
    weight = fit_weight(value_at)
    fitted = {
        "annotations": str(request.annotations),
        "queries": len(corpus.queries),
        "videos": len(corpus.gallery),
        "cache": str(request.cache),
        "runs": identities(corpus.videos, moments),
        "top_videos": request.top_videos,
        "shortlist": request.shortlist,
        "objective": "chain r1@0.5, then r5@0.5, r10@0.5, r1@0.7; tau: likelihood of the right videos",
        "r1@0.5": {f"{tried:g}": values[tried]["r1@0.5"] for tried in (0.0, weight, 1.0)},
    }
    fusion = Fusion(weight=weight, temperature=temperature, fitted=fitted)
    write_fusion(request.fit, fusion)
    return fusion


def _ranks(corpus: _Corpus) -> Ranks:
    """Ranks of the best right video, as the search ranks them; those behind the shortlist are in no order."""
    better, level, candidates = np.zeros((3, len(corpus.queries)), dtype=np.int64)
    for number, (ranked, right) in enumerate(zip(corpus.ranked, corpus.is_right, strict=True)):
        is_right = right[np.searchsorted(corpus.gallery, ranked.numbers)]
        num_wrong = int((~right).sum())
        candidates[number] = num_wrong + 1
        wrong = ranked.similarity[~is_right]
        if is_right.any():
            own = ranked.similarity[is_right].max()
            better[number], level[number] = (wrong > own).sum(), (wrong == own).sum()
        else:
            better[number], level[number] = len(wrong), num_wrong - len(wrong)
    return Ranks(better=better, level=level, candidates=candidates, video=np.zeros(len(better), np.int64))


def _ablation(corpus: _Corpus, chain: "_Chain", fusion: Fusion) -> Values:
    values = chain_values(corpus.truth, chain.lists(fusion))
    return {name: values[name] for name in ABLATED}


def _shortlist_values(corpus: _Corpus) -> Values:
    """Recall against exhaustive scoring."""
    values: Values = {}
    for depth in RECALL_DEPTHS:
        best = [best_of(own, depth) for own in corpus.similarity]
        for length, lists in corpus.shortlists.items():
            values[f"top{depth}_in_{length}"] = np.array(
                [np.isin(own, shortlist).mean() for own, shortlist in zip(best, lists, strict=True)]
            )
    right = np.where(corpus.is_right, corpus.similarity, -np.inf).max(axis=1, keepdims=True)
    wrong = ~corpus.is_right
    ranks = Ranks(
        better=((corpus.similarity > right) & wrong).sum(1), level=((corpus.similarity == right) & wrong).sum(1),
        candidates=wrong.sum(1) + 1, video=np.zeros(len(right), np.int64),
    )  # fmt: skip
    return values | {f"exhaustive_r@{depth}": ranks.hit(depth) for depth in (1, 5, 10)}


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def _provenance(
    corpus: _Corpus, folder: Path, record: RunRecord, fusion: Fusion, request: EvaluationRequest
) -> dict[str, Any]:
    retriever = corpus.videos.run.record
    return {
        "checkpoint": str(folder),
        "weights": dict(record.digests),
        "retriever": str(request.retriever),
        "retriever_weights": dict(retriever.digests),
        "cache": str(request.cache),
        "spaces": [f"{use.name}-{use.hash[:12]}" for use in (retriever.space, *record.spaces)],
        "annotations": str(request.annotations),
        "shortlist": request.shortlist,
        "top_videos": request.top_videos,
        "fusion": settings_of(fusion),
        "fitted_on_what_is_measured": request.fit is not None,
    }
