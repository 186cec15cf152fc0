"""Stage 2: when does it happen in the best videos? Any run that localizes, over its own spaces of the same cache.

    video -> the queries that have it among their best -> tasks/answering.py -> LocatedMoments

Every span of a head with spans counts, of those that overlap heavily the best; a track without a moment counts with its best
guess: what is sure enough is not decided here, the list over all videos is cut by its length. Videos that the spaces of the run
do not hold, or that cannot be read, are named and left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from qle.data.streams.opening import without_suffix
from qle.errors import ConfigError, QleError
from qle.runs.load import load_run
from qle.runs.videos import CachedVideo, RunVideos
from qle.segments.ranked import SHOWN_TIOU, suppress
from qle.tasks.answering import Answerer, AnsweringOptions, answerer_of
from qle.types import OnProgress, Prediction, Query

VIDEOS_PER_PASS = 64
"""That are answered together; their tracks are in memory as long."""
MOST_MOMENTS = 100
"""Moments of a query in a video that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedMoments:
    """The moments of one query in one video, best first."""

    start_s: np.ndarray
    end_s: np.ndarray
    probability: np.ndarray
    """(moments,) float64, falling."""
    presence: float
    duration_s: float


@dataclass(slots=True, kw_only=True)
class Located:
    """What stage 2 says."""

    moments: dict[tuple[str, str], LocatedMoments] = field(default_factory=dict)
    """By (video, query text)."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> why it has no moments."""


class MomentSearch:
    """Localizes in cached videos with a trained run."""

    def __init__(self, folder: Path, cache: Path, *, device: torch.device) -> None:
        self.run = load_run(folder, device)
        try:
            self.answerer: Answerer = answerer_of(self.run, AnsweringOptions(device=device, keeps_all=True))
        except ConfigError as error:
            raise ConfigError(f"--localizer {error}\npass a run of a head that localizes") from error
        self._videos = RunVideos.open(cache, self.run.record)
        self._keys: frozenset[str] | None = None
        self._by_stem: dict[str, list[str]] | None = None

    @property
    def spaces(self) -> tuple[str, ...]:
        return tuple(space.path.name for space in self._videos.spaces)

    def locate(self, asked: Mapping[str, Sequence[str]], on_progress: OnProgress | None = None) -> Located:
        """asked: texts for each video. Progress in videos."""
        located = Located()
        known: list[tuple[str, CachedVideo, list[Query]]] = []
        for name, texts in asked.items():
            key = self.key_of(name)
            if key is None:
                where = " and ".join(self.spaces)
                located.failures[name] = f"not in {where}, which the localizer reads"
            else:
                queries = [Query(text=text) for text in dict.fromkeys(texts)]
                known.append((name, self._videos.video(key), queries))
        for first in range(0, len(known), VIDEOS_PER_PASS):
            part = known[first : first + VIDEOS_PER_PASS]
            self._add(located, part)
            if on_progress is not None:
                on_progress(first + len(part), len(known), "localizing")
        return located

    def key_of(self, name: str) -> str | None:
        """A video of the retriever's space in those of the localizer; names may differ in the suffix of a file."""
        keys = self._known_keys
        if name in keys:
            return name
        if self._by_stem is None:
            self._by_stem = {}
            for key in keys:
                self._by_stem.setdefault(without_suffix(key), []).append(key)
        fitting = self._by_stem.get(without_suffix(name), [])
        return fitting[0] if len(fitting) == 1 else None

    @property
    def _known_keys(self) -> frozenset[str]:
        """Keys of the videos that all spaces hold."""
        if self._keys is None:
            self._keys = frozenset(self._videos.keys())
        return self._keys

    def _add(self, located: Located, part: Sequence[tuple[str, CachedVideo, list[Query]]]) -> None:
        """Together; where one of them cannot be read, each by itself."""
        try:
            answers = self.answerer.predictions_of_videos([(cached, queries) for _, cached, queries in part])
        except QleError as error:
            if len(part) == 1:
                located.failures[part[0][0]] = str(error).splitlines()[0]
                return
            for video in part:
                self._add(located, [video])
            return
        for (name, _, queries), predictions in zip(part, answers, strict=True):
            for query, prediction in zip(queries, predictions, strict=True):
                located.moments[name, query.text] = moments_of(prediction)


def moments_of(prediction: Prediction) -> LocatedMoments:
    """Without those that repeat a better one; never none, where the head has any guess."""
    moments = prediction.moments or (() if prediction.best is None else (prediction.best,))
    rows = sorted(((moment.score, moment.start_s, moment.end_s) for moment in moments), key=lambda row: -row[0])
    score, start_s, end_s = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    kept = suppress(start_s, end_s, np.zeros(len(rows), np.int64), SHOWN_TIOU, MOST_MOMENTS)
    return LocatedMoments(
        start_s=start_s[kept], end_s=end_s[kept], probability=score[kept], presence=prediction.presence,
        duration_s=prediction.duration_s,
    )  # fmt: skip
