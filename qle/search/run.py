"""Both stages for one request: queries -> the best videos of the corpus -> the best moments in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import qle
from qle.runs.load import LoadedRun
from qle.runtime import resolve_device
from qle.search.coarse import retriever_id
from qle.search.fusion import Fused, Fusion, Scored, fuse, log_shares, read_fusion, settings_of
from qle.search.moments import LocatedMoments, MomentSearch
from qle.search.request import MomentHit, Searched, SearchRequest, SearchResult, VideoHit
from qle.search.videos import RankedVideos, VideoSearch, open_search
from qle.text.queries import check_queries
from qle.types import OnProgress, Query


def search(request: SearchRequest, on_progress: OnProgress = lambda done, total, what: None) -> SearchResult:
    """Everything that can be wrong with runs, spaces and queries is said before a video is read."""
    device = resolve_device(request.device)
    moments = None if request.localizer is None else MomentSearch(request.localizer, request.cache, device=device)
    videos = open_search(request.retriever, request.cache, device=device, on_progress=on_progress)
    for run in (videos.run, *(() if moments is None else (moments.run,))):
        check_queries(request.queries, run.text.encoder)
    fusion = Fusion() if request.fusion is None else read_fusion(request.fusion, identities(videos, moments))
    texts = tuple(dict.fromkeys(query.text for query in request.queries))
    ranked = dict(zip(texts, videos.rank(texts, request.shortlist, on_progress=on_progress), strict=True))
    result = SearchResult(
        provenance=_provenance(request, videos, moments, fusion),
        num_videos=len(videos.index),
        has_moments=moments is not None,
        failures=dict(videos.failures),
    )
    located = {}
    if moments is not None:
        answers = moments.locate(asked_of(videos, ranked, request.top_videos), on_progress)
        located = answers.moments
        result.failures |= answers.failures
    for query in request.queries:
        result.searched.append(_searched(query, videos, ranked[query.text], located, request, fusion))
    result.notes = [*videos.notes, *_notes(request, moments)]
    return result


def asked_of(videos: VideoSearch, ranked: Mapping[str, RankedVideos], top_videos: int) -> dict[str, list[str]]:
    """Video -> the queries that have it among their best."""
    asked: dict[str, list[str]] = {}
    for text, videos_of_text in ranked.items():
        for number in videos_of_text.numbers[:top_videos].tolist():
            asked.setdefault(videos.index.key(number), []).append(text)
    return asked


def gathered(by_video: Sequence[LocatedMoments | None]) -> Scored:
    """The moments of the best videos of one query, end to end."""
    counts = [0 if located is None else len(located.probability) for located in by_video]
    parts = [located.probability for located in by_video if located is not None]
    return Scored(
        video=np.repeat(np.arange(len(by_video)), counts), probability=np.concatenate(parts) if parts else np.zeros(0)
    )


def identities(videos: VideoSearch, moments: MomentSearch | None) -> dict[str, str]:
    """Which weights are at work: fused weights hold for these alone."""
    runs: dict[str, LoadedRun] = {"retriever": videos.run}
    if moments is not None:
        runs["localizer"] = moments.run
    return {name: retriever_id(run.record) for name, run in runs.items()}


def _searched(
    query: Query,
    videos: VideoSearch,
    ranked: RankedVideos,
    located: Mapping[tuple[str, str], LocatedMoments],
    request: SearchRequest,
    fusion: Fusion,
) -> Searched:
    has_moments = request.localizer is not None
    share = np.exp(log_shares(ranked.similarity, fusion.temperature))
    best = tuple(
        VideoHit(video=videos.index.key(int(index_number)), rank=number + 1, similarity=float(similarity), share=float(part))
        for number, (index_number, similarity, part) in enumerate(
            zip(ranked.numbers, ranked.similarity[: request.top_videos if has_moments else request.top], share, strict=False)
        )
    )  # fmt: skip
    if not has_moments:
        return Searched(query=query, videos=best)
    by_video = [located.get((hit.video, query.text)) for hit in best]
    fused = fuse(gathered(by_video), ranked.similarity, fusion)
    return Searched(query=query, videos=best, moments=_moments(best, by_video, fused, request.top))


def _moments(
    best: Sequence[VideoHit], by_video: Sequence[LocatedMoments | None], fused: Fused, top: int
) -> tuple[MomentHit, ...]:
    rows = [
        (video, located, number)
        for video, located in zip(best, by_video, strict=True)
        if located is not None
        for number in range(len(located.probability))
    ]
    return tuple(
        MomentHit(
            video=rows[row][0], start_s=float(rows[row][1].start_s[rows[row][2]]),
            end_s=float(rows[row][1].end_s[rows[row][2]]), score=float(score),
            probability=float(rows[row][1].probability[rows[row][2]]), presence=rows[row][1].presence,
            duration_s=rows[row][1].duration_s,
        )
        for row, score in zip(fused.order[:top].tolist(), fused.score[:top].tolist(), strict=True)
    )  # fmt: skip


def _provenance(
    request: SearchRequest, videos: VideoSearch, moments: MomentSearch | None, fusion: Fusion
) -> dict[str, Any]:
    record = videos.run.record
    return {
        "qle": qle.__version__,
        "retriever": {
            "run": str(request.retriever),
            "head": record.head,
            "text encoder": videos.text.encoder.name,
            "weights": record.digests,
            "space": f"{record.space.name}-{record.space.hash[:12]}",
            "shortlist": request.shortlist,
        },
        "localizer": None if moments is None else moments.answerer.provenance() | {"top_videos": request.top_videos},
        "fusion": settings_of(fusion),
        "score": "share of the video ** lambda * probability of the moment ** (1 - lambda)",
    }


def _notes(request: SearchRequest, moments: MomentSearch | None) -> list[str]:
    notes = [] if moments is None else list(dict.fromkeys(moments.answerer.notes))
    if moments is not None and request.fusion is None:
        notes.append(
            f"lambda {Fusion().weight:g} and tau {Fusion().temperature:g} are not fitted: "
            "qle eval --protocol corpus ... --fit fusion.json fits them on validation annotations, --fusion uses them"
        )
    if any(query.video is not None for query in request.queries):
        notes.append("the videos that the queries name are not looked at: the whole corpus is asked")
    return notes
