"""A cached video and queries -> what the head says about every row, in bounded memory whatever the length.

    cache --chunks of rows--> read_rows (each row alone) --features of the whole video--> refine (over time) --> ScoreTrack

There are no windows: rows are read in chunks whose size changes no number, and the temporal mixer then sees the video once,
whole. So no row is left out at the end, none is averaged over overlaps, and a query's scores do not depend on what else is
asked. Training, evaluation, `qle localize` and explanations all score through this file.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qle.cache.reader import Space, Video
from qle.data.annotations import Annotation
from qle.data.lookup import match_videos
from qle.data.rows import RowChoice, choose_rows
from qle.errors import CacheCorruptError, CheckpointError
from qle.eval.rows.scored import ScoredQuery
from qle.heads.rows import RowHead, RowReading, RowScores
from qle.segments.tracks import Localization, best_moment, moments_of, presence_of, probability_of
from qle.tasks.scoring import MEMORY_BYTES, Precision, scoring
from qle.text.bank import QueryBank
from qle.text.base import Words
from qle.text.known import KnownTexts
from qle.types import OnProgress, Prediction, ScoreTrack

READING_COPIES = 12
"""Numbers of one width that a head holds for each token, row and query while it reads (projections, a feed-forward layer)."""
REFINING_COPIES = 40
"""The same for each row and query while it mixes over time."""
MIN_CHUNK_ROWS = 16
"""Fewer rows in a pass waste the machine; rather fewer queries at a time."""


class RowScorer:
    """Scores cached videos with a trained head, which is left in the mode that it was in."""

    def __init__(
        self,
        head: RowHead,
        text: QueryBank,
        *,
        device: torch.device,
        rate_fps: float | None,
        memory_bytes: int = MEMORY_BYTES,
        precision: Precision = "float32",
        known: KnownTexts | None = None,
        keep_bytes: int = 0,
    ) -> None:
        """keep_bytes: how large a reading may be to be kept until the next video, for explanations that ask for it again."""
        self.head, self.text, self.device, self.rate_fps = head.to(device), text, device, rate_fps
        self.memory_bytes, self.precision, self.known = memory_bytes, precision, known
        self._keep_bytes = keep_bytes
        self._kept: _KeptReading | None = None
        self._width: int | None = None

    def score(self, video: Video, queries: Sequence[str], on_progress: OnProgress | None = None) -> list[ScoreTrack]:
        """One track a query, in their order; a query that is asked twice is scored once. Progress in rows times queries."""
        distinct = tuple(dict.fromkeys(queries))
        if not distinct:
            return []
        chosen = self._chosen(video)
        tracks: list[ScoreTrack] = []
        with self._evaluation():
            words = self.text.encode(distinct).to(self.device)
            familiar = [None] * len(distinct) if self.known is None else self.known.familiarity(words.sentence)
            plan = self._plan(chosen, words)
            for first in range(0, len(distinct), plan.group):
                numbers = range(first, min(first + plan.group, len(distinct)))
                group = words.select(torch.tensor(numbers, device=self.device))
                report = _steps(on_progress, chosen, numbers, len(distinct))
                reading, usable = self._read(chosen, group, plan.chunk, report)
                tracks += self._refine(chosen, reading, usable, plan.refine)
                self._keep(_KeptReading(video, distinct[first : first + plan.group], chosen.choice, reading, usable))
        tracks = [replace(track, familiarity=near) for track, near in zip(tracks, familiar, strict=True)]
        track_of = dict(zip(distinct, tracks, strict=True))
        return [track_of[query] for query in queries]

    def read(self, video: Video, queries: Sequence[str]) -> tuple[RowChoice, RowReading, Tensor]:
        """The video as the temporal mixer gets it: its chosen rows, the reading of all of them for all (distinct) queries
        at once, and which rows have usable tokens. Attribution and tests use it; `score` needs less memory."""
        if (kept := self._recalled(video, queries)) is not None:
            return kept.choice, kept.of(queries), kept.usable
        chosen = self._chosen(video)
        with self._evaluation():
            words = self.text.encode(tuple(queries)).to(self.device)
            reading, usable = self._read(chosen, words, self._plan(chosen, words).chunk, lambda rows_done: None)
        return chosen.choice, reading, usable

    def num_rows(self, video: Video) -> int:
        """How many rows of the video are scored."""
        return self._chosen(video).num_rows

    def tokens_of(self, video: Video, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Tokens of some of the chosen rows as the head gets them, and which of those rows are usable."""
        chosen = self._chosen(video)
        rows = np.asarray(rows, np.int64)
        return self._on_device(chosen.fetch(rows), chosen.is_wanted[rows])

    def maps(self, video: Video, queries: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """(queries, rows, grid rows, grid cols) float32, signed; `rows` are numbers among the chosen rows of the video.

        Rows without usable tokens have a map of zeros.
        """
        chosen = self._chosen(video)
        rows = np.asarray(rows, np.int64)
        if not len(rows) or not queries:
            raise ValueError("maps: no rows or no queries were asked for")
        kept = self._recalled(video, queries)
        if kept is not None and (known := kept.of(queries).relevance_map) is not None:
            return _on_host(known[:, rows], kept.usable[rows])
        with self._evaluation():
            words = self.text.encode(tuple(queries)).to(self.device)
            # Maps of all queries at once: few rows are asked for, so the chunk gives way and not the queries.
            chunk = max(1, self._plan(chosen, words).chunk // max(1, len(queries)))
            parts = [self._maps(chosen, words, rows[start : start + chunk]) for start in range(0, len(rows), chunk)]
        return np.concatenate(parts, axis=1)

    def _chosen(self, video: Video) -> "_Chosen":
        return _Chosen(video, self.head.streams, choose_rows(video, self.rate_fps))

    def _maps(self, chosen: "_Chosen", words: Words, rows: np.ndarray) -> np.ndarray:
        tokens, usable = self._on_device(chosen.fetch(rows), chosen.is_wanted[rows])
        relevance = self.head.read_rows(tokens, words, with_maps=True).relevance_map
        if relevance is None:
            raise CheckpointError(f"head {self.head.name} has no relevance maps: there is nothing to show")
        return _on_host(relevance, usable)

    def _read(
        self, chosen: "_Chosen", words: Words, chunk: int, on_rows: Callable[[int], None]
    ) -> tuple[RowReading, Tensor]:
        """Every row alone, for a group of queries; and which rows have tokens to go by."""
        shape = len(words.mask), chosen.num_rows
        usable = torch.zeros(chosen.num_rows, dtype=torch.bool, device=self.device)
        raw_logit = torch.zeros(shape, device=self.device)
        features: Tensor | None = None
        relevance_map: Tensor | None = None
        for rows, fetched in chosen.chunks(chunk):
            tokens, usable[rows] = self._on_device(fetched, chosen.is_wanted[rows])
            reading = self.head.read_rows(tokens, words, with_maps=self._keep_bytes > 0)
            if features is None:
                features = raw_logit.new_zeros(*shape, reading.features.shape[-1])
                relevance_map = self._room_for_maps(reading, shape)
            features[:, rows], raw_logit[:, rows] = reading.features.float(), reading.raw_logit.float()
            if relevance_map is not None and reading.relevance_map is not None:
                relevance_map[:, rows] = reading.relevance_map.float()
            on_rows(rows.stop)
        if features is None or not bool(usable.any()):
            raise CacheCorruptError(
                f"video {chosen.video.key!r}: none of its {chosen.num_rows} rows has finite tokens ({chosen.video.folder})\n"
                "extract it again; qle cache verify --deep finds files that differ from what was written"
            )
        return RowReading(features=features, raw_logit=raw_logit, relevance_map=relevance_map), usable

    def _room_for_maps(self, first: RowReading, shape: tuple[int, int]) -> Tensor | None:
        """Zeros for the maps of (queries, rows), given the reading of a first few rows; None where they would not be kept."""
        if first.relevance_map is None:
            return None
        row = first.features[0, 0].numel() + first.relevance_map[0, 0].numel()
        if 4 * math.prod(shape) * row > self._keep_bytes:
            return None
        return first.raw_logit.new_zeros(*shape, *first.relevance_map.shape[2:], dtype=torch.float32)

    def _keep(self, kept: "_KeptReading") -> None:
        self._kept = kept if kept.num_bytes <= self._keep_bytes else None

    def _recalled(self, video: Video, queries: Sequence[str]) -> "_KeptReading | None":
        """The kept reading, where it is of this video and holds all the queries."""
        kept = self._kept
        return kept if kept is not None and kept.video is video and set(queries) <= set(kept.queries) else None

    def _on_device(self, fetched: Mapping[str, Tensor], is_wanted: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Tokens as in training: float32, zeros where a row is not valid or not finite. And which rows are both."""
        tokens = {name: stream.to(self.device).float() for name, stream in fetched.items()}
        usable = torch.from_numpy(is_wanted).to(self.device)
        for stream in tokens.values():
            usable = usable & torch.isfinite(stream).flatten(1).all(1)
        for stream in tokens.values():
            stream[~usable] = 0
        return tokens, usable

    def _refine(self, chosen: "_Chosen", reading: RowReading, usable: Tensor, step: int) -> list[ScoreTrack]:
        times_s = torch.from_numpy(np.array(chosen.choice.times_s)).to(self.device)
        valid = usable.cpu().numpy() & chosen.choice.valid
        tracks: list[ScoreTrack] = []
        for first in range(0, len(reading.raw_logit), step):
            queries = slice(first, first + step)
            part = RowReading(features=reading.features[queries], raw_logit=reading.raw_logit[queries])
            scores = self.head.refine(part, times_s, usable)
            said = scores.logit[:, usable], scores.presence_logit
            if not all(bool(torch.isfinite(numbers).all()) for numbers in said if numbers is not None):
                raise CheckpointError(
                    f"head {self.head.name} gives scores that are not finite on finite tokens of {chosen.video.key!r}\n"
                    "its weights are damaged or its training diverged: use another checkpoint"
                )
            tracks += [_track(chosen.choice, valid, part, scores, number) for number in range(len(part.raw_logit))]
        return tracks

    def _plan(self, chosen: "_Chosen", words: Words) -> "_Plan":
        """One row of zeros shows, once, how wide the head is; the rest is arithmetic."""
        if self._width is None:
            zeros = {name: torch.zeros(1, *shape, device=self.device) for name, shape in chosen.row_shapes.items()}
            first = words.select(torch.zeros(1, dtype=torch.long, device=self.device))
            self._width = self.head.read_rows(zeros, first).features.shape[-1]
        return _Plan.of(chosen.row_shapes, chosen.num_rows, len(words.mask), self._width, self.memory_bytes)

    def _evaluation(self) -> AbstractContextManager[None]:
        return scoring([self.head, self.text.encoder], self.device, self.precision)


def _on_host(maps: Tensor, usable: Tensor) -> np.ndarray:
    """(queries, rows, grid rows, grid cols) float32, zeros in rows without usable tokens."""
    numbers: np.ndarray = (maps.float() * usable[:, None, None]).cpu().numpy()
    return numbers


@dataclass(frozen=True, slots=True)
class _KeptReading:
    """All rows of a video as they were read for some queries."""

    video: Video
    queries: tuple[str, ...]
    choice: RowChoice
    reading: RowReading
    usable: Tensor

    @property
    def num_bytes(self) -> int:
        tensors = (self.reading.features, self.reading.raw_logit, self.reading.relevance_map)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def of(self, queries: Sequence[str]) -> RowReading:
        """For some of the queries, in their order."""
        numbers = [self.queries.index(query) for query in queries]
        maps = self.reading.relevance_map
        return RowReading(
            features=self.reading.features[numbers], raw_logit=self.reading.raw_logit[numbers],
            relevance_map=None if maps is None else maps[numbers],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How a video is walked: queries in groups, rows in chunks, both for the sake of memory only."""

    group: int
    """Queries whose features are held at the same time."""
    chunk: int
    """Rows in a reading pass of a group."""
    refine: int
    """Queries in a pass over time."""

    @classmethod
    def of(
        cls, row_shapes: Mapping[str, tuple[int, ...]], num_rows: int, num_queries: int, width: int, memory_bytes: int
    ) -> "_Plan":
        """Half of the budget for features and half for whichever pass is at work."""
        half = memory_bytes // 2
        features_bytes = num_rows * width * 4
        # As read, as float32, and the chunk that is read meanwhile.
        row_bytes = 3 * 4 * sum(math.prod(shape) for shape in row_shapes.values())
        pass_bytes = READING_COPIES * 4 * width * sum(math.prod(shape[:-1]) for shape in row_shapes.values())
        fits = min(half // features_bytes, (half // MIN_CHUNK_ROWS - row_bytes) // pass_bytes)
        group = max(1, min(num_queries, fits))
        return cls(
            group=group,
            chunk=max(1, min(num_rows, half // (row_bytes + group * pass_bytes))),
            refine=max(1, min(group, half // (features_bytes * REFINING_COPIES))),
        )


class _Chosen:
    """The rows of a video that are scored, read from the cache in pieces."""

    def __init__(self, video: Video, streams: Sequence[str], choice: RowChoice) -> None:
        self.video, self.choice = video, choice
        self.row_shapes = {name: video.stored(name).shape[1:] for name in streams}
        # A video whose frames were all off screen at their times is still shown to the head; its track is valid nowhere.
        self.is_wanted = np.array(choice.valid) if choice.valid.any() else np.ones(self.num_rows, bool)

    @property
    def num_rows(self) -> int:
        return len(self.choice.index)

    def chunks(self, size: int) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Pieces of that many rows; the next one comes from the disk while the caller works on this one."""
        pieces = [slice(start, min(start + size, self.num_rows)) for start in range(0, self.num_rows, size)]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-tokens") as reader:
            following = reader.submit(self.fetch, pieces[0]) if pieces else None
            for number, piece in enumerate(pieces, start=1):
                assert following is not None
                fetched = following.result()
                following = reader.submit(self.fetch, pieces[number]) if number < len(pieces) else None
                yield piece, fetched

    def fetch(self, rows: slice | np.ndarray) -> dict[str, Tensor]:
        """Their tokens in the numbers that the reader gives."""
        index = self.choice.index[rows]
        is_run = bool((np.diff(index) == 1).all())
        fetched = {}
        for name in self.row_shapes:
            run = self.video.read(name, int(index[0]), int(index[-1]) + 1) if is_run else None
            fetched[name] = torch.from_numpy(self.video.rows_of(name)[index] if run is None else run)
        return fetched


def _track(choice: RowChoice, valid: np.ndarray, reading: RowReading, scores: RowScores, number: int) -> ScoreTrack:
    def host(values: Tensor) -> np.ndarray:
        numbers: np.ndarray = values[number].float().cpu().numpy()
        return np.where(np.isfinite(numbers), numbers, np.float32(0))  # only rows that are not valid can be otherwise

    return ScoreTrack(
        times_s=choice.times_s,
        edges_s=choice.edges_s,
        valid=valid,
        logit=host(scores.logit),
        raw_logit=host(reading.raw_logit),
        uncertainty=None if scores.uncertainty is None else host(scores.uncertainty),
        presence_logit=None if scores.presence_logit is None else float(scores.presence_logit[number]),
    )


def _steps(on_progress: OnProgress | None, chosen: _Chosen, queries: range, num_queries: int) -> Callable[[int], None]:
    """Progress over groups of queries as one count: of rows, each as often as there are queries."""

    def report(rows_done: int) -> None:
        if on_progress is not None:
            done = queries.start * chosen.num_rows + len(queries) * rows_done
            on_progress(done, num_queries * chosen.num_rows, chosen.video.key)

    return report


def score_annotations(
    scorer: RowScorer,
    space: Space,
    annotations: Sequence[Annotation],
    *,
    allow_missing: bool = False,
    on_progress: OnProgress | None = None,
) -> list[ScoredQuery]:
    """Every annotation with the track of its query in its video, in their order; each text is asked once a video.

    `allow_missing`: annotations of videos that the cache does not hold are left out instead of being an error.
    """
    matched, _ = match_videos(space, annotations, allow_missing=allow_missing)
    return score_matched(scorer, space, matched, annotations, on_progress=on_progress)


def score_matched(
    scorer: RowScorer,
    space: Space,
    matched: Mapping[str, Sequence[Annotation]],
    order: Sequence[Annotation],
    *,
    on_progress: OnProgress | None = None,
) -> list[ScoredQuery]:
    """The same for annotations by the key of their video; those of `order` that have one, in this order. Progress in videos."""
    scored: dict[int, ScoredQuery] = {}
    for done, (key, asked) in enumerate(matched.items()):
        if on_progress is not None:
            on_progress(done, len(matched), key)
        tracks = scorer.score(space.video(key), [annotation.query for annotation in asked])
        for annotation, track in zip(asked, tracks, strict=True):
            scored[id(annotation)] = ScoredQuery(annotation=annotation, video=key, track=track)
    if on_progress is not None:
        on_progress(len(matched), len(matched), "")
    return [scored[id(annotation)] for annotation in order if id(annotation) in scored]


def predict(
    video_key: str, query: str, track: ScoreTrack, localization: Localization, qid: str | None = None
) -> Prediction:
    """A track and the constants of its run, as moments and the probability that the query happens at all."""
    moments = moments_of(track, localization)
    return Prediction(
        video=video_key,
        query=query,
        qid=qid,
        duration_s=float(track.edges_s[-1]),
        moments=moments,
        best=best_moment(track, localization),
        presence=presence_of(track, localization),
        probability=probability_of(track, localization),
        track=track,
    )
