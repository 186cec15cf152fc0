"""What a run says about a video, whatever kind of head it has: the part of `qle localize` that differs between heads.

    run --answerer_of--> Answerer; a found video + queries -> Prediction of each query -> frames for pictures and reports

A head that scores rows has moments cut from its track, and maps that say where in the picture. A head that answers with spans
has ranked ones, and a saliency of clips for a track; it looks at means of whole clips, so there is nothing to paint.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import torch

import qle
from qle.cache.reader import Space, Video
from qle.config import config_to_dict
from qle.data.rows import choose_rows
from qle.data.streams.features import StreamSet
from qle.data.streams.lengths import trimmed_note
from qle.errors import CheckpointError, ConfigError
from qle.explain.evidence import explain_frames, show_frames
from qle.explain.explained import ExplainedPrediction
from qle.heads.moments import MomentHead
from qle.heads.rows import RowHead
from qle.runs.load import LoadedRun
from qle.runs.spaces import streams_of
from qle.segments.ranked import Candidates, Ranking, shown
from qle.tasks.moments.scoring import MomentScorer
from qle.tasks.moments.scoring import predict as predict_moments
from qle.tasks.rows.scoring import RowScorer, predict
from qle.tasks.scoring import MEMORY_BYTES, OnProgress, Precision
from qle.types import Familiarity, Prediction, Query

MOST_NAMED = 3
"""Queries that a note names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A cached video: its key, and all spaces of the run, which hold it."""

    key: str
    spaces: tuple[Space, ...]

    @property
    def video(self) -> Video:
        """In the first of them."""
        return self.spaces[0].video(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """How frames are shown."""

    num_frames: int
    """Of a query in a video."""
    source: Path | None = None
    """Where the film lies now, if not where it was."""
    max_side: int
    with_attribution: bool


class Answerer(ABC):
    """Answers queries about cached videos."""

    has_maps: ClassVar[bool]
    """Whether it says where in the picture."""

    def __init__(self, run: LoadedRun) -> None:
        self.run = run
        self.notes: list[str] = []
        """What was noticed on the way."""
        self._outside: dict[str, float] = {}

    @abstractmethod
    def predictions(
        self, found: Found, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        """Of each query, in their order."""

    def predictions_of_videos(self, asked: Sequence[tuple[Found, Sequence[Query]]]) -> list[list[Prediction]]:
        """The same for several videos, each with its queries. An error of one video ends all."""
        return [self.predictions(found, queries) for found, queries in asked]

    @abstractmethod
    def explained(self, found: Found, predictions: Sequence[Prediction], showing: Showing) -> list[ExplainedPrediction]:
        """Predictions with the frames that speak most for them."""

    def _note_outside(self, familiarities: Mapping[str, Familiarity | None]) -> None:
        """One note about all queries whose words the run does not know, in the place of the one before."""
        before = outside_note(self._outside)
        self._outside |= {query: near.distance for query, near in familiarities.items() if near and near.is_outside}
        self.notes = [note for note in self.notes if note != before]
        if self._outside:
            self.notes.append(outside_note(self._outside))

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        record = self.run.record
        names = [f"{use.name}-{use.hash[:12]}" for use in record.spaces]
        backbones = [_origin(use.hashed) for use in record.spaces]
        is_one = len(names) == 1
        return {
            "qle": qle.__version__,
            "run": str(self.run.folder),
            "head": record.head,
            "text encoder": self.run.text.encoder.name,
            "weights": record.digests,
            "trained": record.created.strftime("%Y-%m-%d %H:%M UTC"),
            "space": names[0] if is_one else names,
            "backbone": backbones[0] if is_one else backbones,
            **self._own_provenance(),
        }

    @abstractmethod
    def _own_provenance(self) -> dict[str, Any]:
        """What only heads of this kind have."""


class RowAnswerer(Answerer):
    """Of heads that score rows."""

    has_maps = True

    def __init__(self, run: LoadedRun, scorer: RowScorer) -> None:
        super().__init__(run)
        self._scorer = scorer

    def predictions(
        self, found: Found, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        tracks = self._scorer.score(found.video, [query.text for query in queries], on_progress)
        # Rows that were on screen and yet have no tokens to go by; what happens in them cannot be found.
        was_shown = choose_rows(found.video, self._scorer.rate_fps).valid
        self._note_unusable(int((was_shown & ~tracks[0].valid).sum()), len(was_shown), found.key)
        constants = self.run.record.localization
        self._note_outside({query.text: track.familiarity for query, track in zip(queries, tracks, strict=True)})
        return [
            predict(found.key, query.text, track, constants, query.qid)
            for query, track in zip(queries, tracks, strict=True)
        ]

    def explained(self, found: Found, predictions: Sequence[Prediction], showing: Showing) -> list[ExplainedPrediction]:
        return explain_frames(
            self._scorer, found.video, predictions, source=showing.source, max_side=showing.max_side,
            preprocess=self.run.record.space.hashed.get("preprocess") or {}, num_frames=showing.num_frames,
            with_attribution=showing.with_attribution,
        )  # fmt: skip

    def _note_unusable(self, num_unusable: int, num_rows: int, key: str) -> None:
        if num_unusable:
            self.notes.append(f"{num_unusable} of {num_rows} rows of {key} are not usable (qle cache verify --deep)")

    def _own_provenance(self) -> dict[str, Any]:
        return {
            "rate_fps": self.run.record.rate_fps,
            "localization": config_to_dict(self.run.record.localization),
            "device": self._scorer.device.type,
            "precision": self._scorer.precision,
        }


class MomentAnswerer(Answerer):
    """Of heads that answer with spans."""

    has_maps = False

    def __init__(
        self, run: LoadedRun, head: MomentHead, *, device: torch.device, precision: Precision, memory_bytes: int,
        keeps_all: bool,
    ) -> None:  # fmt: skip
        super().__init__(run)
        record = run.record
        if record.recipe is None:
            raise CheckpointError(
                f"{run.folder}: the run does not say how its features are made (no recipe): train again"
            )
        self._head, self._device, self._precision = head, device, precision
        self._memory_bytes, self._keeps_all = memory_bytes, keeps_all
        self._ranking = record.ranking or Ranking()
        if not record.is_calibrated:
            self.notes.append("scores and presence of this imported run are raw: they rank, and are no probabilities")
        self._streams: tuple[tuple[Space, ...], StreamSet] | None = None
        self._trimmed: set[str] = set()

    def predictions(
        self, found: Found, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        scorer = self._scorer_of(found.spaces)
        all_candidates = scorer.score(found.key, [query.text for query in queries], on_progress)
        return self._told(found.key, queries, all_candidates)

    def predictions_of_videos(self, asked: Sequence[tuple[Found, Sequence[Query]]]) -> list[list[Prediction]]:
        """Short videos share passes."""
        told: list[list[Prediction]] = []
        for spaces, group in groupby(asked, key=lambda one: one[0].spaces):
            videos = list(group)
            texts: dict[str, list[str]] = {}
            for found, queries in videos:
                texts.setdefault(found.key, []).extend(query.text for query in queries)
            scored = self._scorer_of(spaces).score_videos(texts)
            for found, queries in videos:
                told.append(self._told(found.key, queries, [scored[found.key, query.text] for query in queries]))
        return told

    def explained(self, found: Found, predictions: Sequence[Prediction], showing: Showing) -> list[ExplainedPrediction]:
        return show_frames(
            self._streams_of(found.spaces).videos(found.key), predictions, num_frames=showing.num_frames,
            source=showing.source, max_side=showing.max_side,
        )  # fmt: skip

    def _scorer_of(self, spaces: tuple[Space, ...]) -> MomentScorer:
        return MomentScorer(
            self._head, self.run.text, self._streams_of(spaces), device=self._device, precision=self._precision,
            memory_bytes=self._memory_bytes,
        )  # fmt: skip

    def _told(self, key: str, queries: Sequence[Query], all_candidates: Sequence[Candidates]) -> list[Prediction]:
        valid = all_candidates[0].track.valid
        if not valid.all():
            self.notes.append(f"{int((~valid).sum())} of {len(valid)} clips of {key} are not usable or not seen")
        if self._streams is not None and key in self._streams[1].trimmed - self._trimmed:
            self._note_trimmed(key)
        all_candidates = self._with_familiarity(queries, all_candidates)
        predictions = []
        for query, candidates in zip(queries, all_candidates, strict=True):
            one = predict_moments(key, query.text, candidates, self._ranking, query.qid)
            predictions.append(one if self._keeps_all else replace(one, moments=shown(candidates, self._ranking)))
        return predictions

    def _with_familiarity(self, queries: Sequence[Query], all_candidates: Sequence[Candidates]) -> list[Candidates]:
        if self.run.known is None:
            return list(all_candidates)
        texts = list(dict.fromkeys(query.text for query in queries))
        near = dict(zip(texts, self.run.known.familiarity(self.run.text.encode(texts).sentence), strict=True))
        self._note_outside(near)
        return [
            replace(candidates, track=replace(candidates.track, familiarity=near[query.text]))
            for query, candidates in zip(queries, all_candidates, strict=True)
        ]

    def _note_trimmed(self, key: str) -> None:
        """One note that counts them, in the place of the one before."""
        before = trimmed_note(len(self._trimmed))
        self._trimmed.add(key)
        self.notes = [note for note in self.notes if note != before] + [trimmed_note(len(self._trimmed))]

    def _streams_of(self, spaces: tuple[Space, ...]) -> StreamSet:
        """Which videos several spaces have in common is found once."""
        known = () if self._streams is None else self._streams[0]
        if self._streams is None or not all(map(operator.is_, known, spaces)):
            self._streams = spaces, streams_of(self.run.record, spaces)
        return self._streams[1]

    def _own_provenance(self) -> dict[str, Any]:
        recipe = self.run.record.recipe
        assert recipe is not None
        return {
            "features": config_to_dict(recipe),
            "ranking": config_to_dict(self._ranking),
            "moments": "all that the head gives" if self._keeps_all else "as people are shown them",
            "device": self._device.type,
            "precision": self._precision,
        }


def outside_note(distances: Mapping[str, float]) -> str:
    """Which queries a run has no words for, by their distance from the nearest training text."""
    few = "; ".join(f"{query!r} ({distance:.2f})" for query, distance in list(distances.items())[:MOST_NAMED])
    more = f"; and {len(distances) - MOST_NAMED} more" if len(distances) > MOST_NAMED else ""
    return f"outside what this run has heard, so its answer is a guess (distance from its texts): {few}{more}"


def _origin(hashed: Mapping[str, Any]) -> Any:
    """What made the numbers of a space: a backbone, or who imported them says by a name."""
    imported = hashed.get("imported")
    if isinstance(imported, Mapping):
        return f"imported:{imported.get('name', 'unknown')}"
    return hashed.get("backbone") or "unknown"


def answerer_of(
    run: LoadedRun, *, device: torch.device, precision: Precision = "float32", memory_bytes: int = MEMORY_BYTES,
    keeps_all: bool = False,
) -> Answerer:  # fmt: skip
    """For the head of the run; ConfigError for one that finds no moments.

    keeps_all: every span that a head gives, overlapping and improbable ones too, as evaluators want them.
    """
    head = run.head
    if isinstance(head, RowHead):
        scorer = RowScorer(
            head,
            run.text,
            device=device,
            rate_fps=run.record.rate_fps,
            memory_bytes=memory_bytes,
            precision=precision,
            known=run.known,
        )
        return RowAnswerer(run, scorer)
    if isinstance(head, MomentHead):
        return MomentAnswerer(
            run, head, device=device, precision=precision, memory_bytes=memory_bytes, keeps_all=keeps_all
        )
    raise ConfigError(f"{run.folder}: head {run.record.head} finds videos, not moments in them: it cannot localize")
