"""Cached clips and queries -> what a moment head says: candidate spans and saliency, whatever the length of the video.

    StreamSet --clips--> windows that overlap by half --batches of (window, query)--> head --> seconds of the video --> Candidates

Windows of any videos and queries share a pass, as many as memory allows: what stands in a pass changes no number beyond
rounding. Spans are fractions of a window; they become seconds through the edges of its clips, so that nothing depends on a
clip length or a longest video. Where windows overlap, saliency is averaged with weights that fall towards the borders inside
the video. Candidates are merged later (`ranked.rank`), with what their windows have seen beside them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qle.data.annotations import Annotation
from qle.data.streams.features import StreamSet, VideoClips, WindowClips, window_of, windows_of
from qle.errors import CacheCorruptError, CheckpointError
from qle.eval.moments.ranked import RankedQuery
from qle.heads.moments import MomentBatch, MomentHead, MomentScores
from qle.segments.ranked import Candidates, Ranking, presence_of, probability_of, rank
from qle.tasks.scoring import MEMORY_BYTES, Precision, scoring
from qle.text.bank import QueryBank
from qle.text.base import Words
from qle.types import OnProgress, Prediction, ScoreTrack

CLIP_COPIES = 4
"""Copies of the features of a clip that are alive at a time: the batch, its norm, the projection at work."""
CLIP_NUMBERS = 24_000
"""Numbers of a clip inside a head of the usual width: layers of attention and feed-forward parts."""
NUM_MAPS = 16
"""Attention maps (clips x clips) of an item."""
MOST_ITEMS = 128
"""More in a pass gain nothing."""


class MomentScorer:
    """Scores cached videos with a trained head, which is left in the mode that it was in."""

    def __init__(
        self,
        head: MomentHead,
        text: QueryBank,
        streams: StreamSet,
        *,
        device: torch.device,
        precision: Precision = "float32",
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.head, self.text, self.streams, self.device = head.to(device), text, streams, device
        self.precision, self.memory_bytes = precision, memory_bytes

    def score(self, key: str, queries: Sequence[str], on_progress: OnProgress | None = None) -> list[Candidates]:
        """What the head says about each query, in their order; one that is asked twice is scored once. Progress in windows
        times queries."""
        scored = _Scoring(self, on_progress).run({key: queries})
        return [scored[key, query] for query in queries]

    def score_videos(
        self, asked: Mapping[str, Sequence[str]], on_progress: OnProgress | None = None
    ) -> dict[tuple[str, str], Candidates]:
        """By (key, query). Short videos share passes. Progress in videos."""
        return _Scoring(self, on_progress, counts_videos=True).run(asked)

    def items_per_pass(self, num_clips: int) -> int:
        """How many windows of so many clips fit into the memory of a pass."""
        clip_numbers = CLIP_COPIES * self.streams.recipe.dim + CLIP_NUMBERS + NUM_MAPS * num_clips
        return max(1, min(MOST_ITEMS, self.memory_bytes // (4 * num_clips * clip_numbers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _VideoInWindows:
    """One video in windows."""

    key: str
    clips: VideoClips
    windows: tuple[tuple[int, int], ...]
    """(first, stop) of those that hold a usable clip; a head has nothing to look at in the others."""

    @property
    def windows_s(self) -> np.ndarray:
        edges_s = self.clips.edges_s
        return np.array([(edges_s[first], edges_s[stop]) for first, stop in self.windows])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One window of a video and one query."""

    video: _VideoInWindows
    number: int
    """Number of the window."""
    query: str
    window: WindowClips


@dataclass(slots=True, kw_only=True)
class _Said:
    """What the head has said about a video and a query so far, window after window."""

    spans: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    saliency: list[np.ndarray] = field(default_factory=list)
    """Saliency of every clip of the window."""


class _Scoring:
    """One call of the scorer."""

    def __init__(self, scorer: MomentScorer, on_progress: OnProgress | None, *, counts_videos: bool = False) -> None:
        self._scorer, self._on_progress, self._counts_videos = scorer, on_progress, counts_videos
        self._said: dict[tuple[str, str], _Said] = {}
        self._candidates: dict[tuple[str, str], Candidates] = {}
        self._words: tuple[tuple[str, ...], Words] | None = None

    def run(self, asked: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Candidates]:
        scorer = self._scorer
        waiting: list[_Item] = []
        with scoring([scorer.head, scorer.text.encoder], scorer.device, scorer.precision):
            for done, (key, queries) in enumerate(asked.items()):
                if self._counts_videos:
                    self._report(done, len(asked), key)
                for number, (item, num_items) in enumerate(self._items(key, queries)):
                    if waiting and len(waiting) >= scorer.items_per_pass(_longest([*waiting, item])):
                        self._pass(waiting)
                        waiting = []
                        if not self._counts_videos:
                            self._report(number, num_items, key)
                    waiting.append(item)
            if waiting:
                self._pass(waiting)
        self._report(len(asked), len(asked), "")
        return self._candidates

    def _items(self, key: str, queries: Sequence[str]) -> Iterator[tuple[_Item, int]]:
        """Query after query, so that few distinct ones stand in a pass; and how many items there are."""
        recipe = self._scorer.streams.recipe
        clips = self._scorer.streams.clips(key)
        if not clips.valid.any():
            raise CacheCorruptError(
                f"video {key!r}: none of its {clips.num_clips} clips has finite features in all of its spaces\n"
                "extract or import it again; qle cache verify --deep finds files that differ from what was written"
            )
        seen = tuple(
            (first, stop) for first, stop in windows_of(clips.num_clips, recipe) if clips.valid[first:stop].any()
        )
        video = _VideoInWindows(key=key, clips=clips, windows=seen)
        distinct = tuple(dict.fromkeys(queries))
        for query in distinct:
            for number, (first, stop) in enumerate(video.windows):
                window = window_of(clips, first, stop, recipe)
                yield (
                    _Item(video=video, number=number, query=query, window=window),
                    len(distinct) * len(video.windows),
                )

    def _pass(self, items: Sequence[_Item]) -> None:
        scorer = self._scorer
        batch = self._batch(items).to(scorer.device)
        scores = scorer.head.decode(scorer.head(batch))
        _check_finite(scorer.head.name, items, scores, batch.clip_mask)
        spans, logits = scores.spans.double().cpu().numpy(), scores.logit.double().cpu().numpy()
        saliency = scores.saliency.cpu().numpy()
        for number, item in enumerate(items):
            count = len(item.window.valid)
            said = self._said.setdefault((item.video.key, item.query), _Said())
            said.spans.append(np.interp(spans[number] * count, np.arange(count + 1), item.window.edges_s))
            said.logits.append(logits[number])
            said.saliency.append(_of_clips(saliency[number, :count], item))
            if len(said.spans) == len(item.video.windows):
                self._candidates[item.video.key, item.query] = _candidates(
                    item.video, self._said.pop((item.video.key, item.query))
                )

    def _batch(self, items: Sequence[_Item]) -> MomentBatch:
        clips = torch.zeros(len(items), _longest(items), self._scorer.streams.recipe.dim)
        mask = torch.zeros(clips.shape[:2], dtype=torch.bool)
        for row, item in enumerate(items):
            count = len(item.window.valid)
            clips[row, :count] = torch.from_numpy(item.window.features)
            mask[row, :count] = torch.from_numpy(item.window.valid)
        queries = tuple(dict.fromkeys(item.query for item in items))
        numbers = {query: number for number, query in enumerate(queries)}
        windows = [(item.video.key, item.number) for item in items]
        sources = {window: number for number, window in enumerate(dict.fromkeys(windows))}
        return MomentBatch(
            clips=clips,
            clip_mask=mask,
            queries=queries,
            query_index=torch.tensor([numbers[item.query] for item in items]),
            # Each window is a recording of its own: heads that look at all of a recording must not see who shares the pass.
            sources=torch.tensor([sources[window] for window in windows]),
            words=self._encoded(queries),
            videos=tuple(item.video.key for item in items),
            first_clips=tuple(item.video.windows[item.number][0] for item in items),
        )

    def _encoded(self, queries: tuple[str, ...]) -> Words:
        """Passes of a long video ask the same again and again, and an encoder that is trained keeps nothing."""
        if self._words is None or self._words[0] != queries:
            self._words = queries, self._scorer.text.encode(queries)
        return self._words[1]

    def _report(self, done: int, total: int, what: str) -> None:
        if self._on_progress is not None:
            self._on_progress(done, total, what)


def score_annotations(
    scorer: MomentScorer,
    annotations: Sequence[Annotation],
    *,
    allow_missing: bool = False,
    on_progress: OnProgress | None = None,
) -> list[RankedQuery]:
    """Every annotation with what the head says about its query in its video, in their order.

    `allow_missing`: annotations of videos that the spaces do not all hold are left out instead of being an error.
    """
    matched, _ = scorer.streams.match(annotations, allow_missing=allow_missing)
    return score_matched(scorer, matched, annotations, on_progress=on_progress)


def score_matched(
    scorer: MomentScorer,
    matched: Mapping[str, Sequence[Annotation]],
    order: Sequence[Annotation],
    *,
    on_progress: OnProgress | None = None,
) -> list[RankedQuery]:
    """The same for annotations by the key of their video; those of `order` that have one, in this order. Progress in videos."""
    asked = {key: [annotation.query for annotation in of_video] for key, of_video in matched.items()}
    candidates = scorer.score_videos(asked, on_progress)
    keys = {id(annotation): key for key, of_video in matched.items() for annotation in of_video}
    return [
        RankedQuery(annotation=annotation, video=key, candidates=candidates[key, annotation.query])
        for annotation in order
        if (key := keys.get(id(annotation))) is not None
    ]


def predict_moments(
    key: str, query: str, candidates: Candidates, ranking: Ranking, qid: str | None = None
) -> Prediction:
    """All ranked moments, as benchmarks want them, and the probability that the query happens at all."""
    moments = rank(candidates, ranking)
    return Prediction(
        video=key,
        query=query,
        qid=qid,
        duration_s=candidates.duration_s,
        moments=moments,
        best=moments[0],
        presence=presence_of(candidates, ranking),
        probability=probability_of(candidates.track, ranking),
        track=candidates.track,
    )


def _candidates(video: _VideoInWindows, said: _Said) -> Candidates:
    spans = np.concatenate(said.spans)
    return Candidates(
        start_s=spans[:, 0],
        end_s=spans[:, 1],
        logit=np.concatenate(said.logits),
        window=np.repeat(np.arange(len(said.spans)), [len(part) for part in said.spans]),
        track=_track(video, said.saliency),
        duration_s=video.clips.duration_s,
        windows_s=video.windows_s,
    )


def _track(video: _VideoInWindows, saliency: Sequence[np.ndarray]) -> ScoreTrack:
    """Clips that no window has seen, or that hold nothing to see, are not valid, and rank with the lowest."""
    clips = video.clips
    total, weight = np.zeros(clips.num_clips), np.zeros(clips.num_clips)
    for (first, stop), values in zip(video.windows, saliency, strict=True):
        falling = _falling(stop - first, starts_inside=first > 0, stops_inside=stop < clips.num_clips)
        falling *= clips.valid[first:stop]
        total[first:stop] += np.where(falling > 0, falling * values, 0.0)
        weight[first:stop] += falling
    is_seen = weight > 0
    mean = total[is_seen] / weight[is_seen]
    logit = np.full(clips.num_clips, mean.min())
    logit[is_seen] = mean
    return ScoreTrack(
        times_s=(clips.edges_s[:-1] + clips.edges_s[1:]) / 2,
        edges_s=clips.edges_s,
        valid=is_seen,
        logit=logit.astype(np.float32),
    )


def _falling(count: int, *, starts_inside: bool, stops_inside: bool) -> np.ndarray:
    """(clips,) weights: 1, falling from the middle of the window towards each border behind which the video goes on."""
    rising = np.minimum(1.0, (np.arange(count) + 0.5) * 2 / count)
    weight = rising if starts_inside else np.ones(count)
    return np.minimum(weight, rising[::-1]) if stops_inside else weight


def _of_clips(saliency: np.ndarray, item: _Item) -> np.ndarray:
    """The saliency of every clip of the window, also where the head has seen means of several clips."""
    first, stop = item.video.windows[item.number]
    if len(saliency) == stop - first:
        return saliency
    edges_s = item.video.clips.edges_s[first : stop + 1]
    seen = np.searchsorted(item.window.edges_s, (edges_s[:-1] + edges_s[1:]) / 2, side="right") - 1
    values: np.ndarray = saliency[np.clip(seen, 0, len(saliency) - 1)]
    return values


def _check_finite(name: str, items: Sequence[_Item], scores: MomentScores, mask: Tensor) -> None:
    is_fine = torch.isfinite(scores.spans).all() & torch.isfinite(scores.logit).all()
    if not bool(is_fine & torch.isfinite(scores.saliency[mask]).all()):
        raise CheckpointError(
            f"head {name} gives numbers that are not finite on finite features of {items[0].video.key!r} or a video beside it\n"
            "its weights are damaged or its training diverged: use another checkpoint"
        )


def _longest(items: Sequence[_Item]) -> int:
    return max(len(item.window.valid) for item in items)
