"""What a run says about a video, whatever its task is: the part of `qle localize` that differs from task to task.

    run --answerer_of--> Answerer; a cached video + queries -> a Prediction of each query

A task that can answer has an Answerer in its folder (tasks/<task>/answering.py). Explaining is done to its predictions, not by
it: qle/explain/evidence.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import qle
from qle.cache.reader import Video
from qle.errors import ConfigError
from qle.heads import task_of
from qle.runs.load import LoadedRun
from qle.runs.videos import CachedVideo
from qle.tasks.scoring import MEMORY_BYTES, Precision
from qle.types import Familiarity, OnProgress, Prediction, Query

MOST_NAMED = 3
"""Queries that a note names."""

if TYPE_CHECKING:
    from qle.tasks.rows.scoring import RowScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringOptions:
    """How a run is asked."""

    device: torch.device
    precision: Precision = "float32"
    memory_bytes: int = MEMORY_BYTES
    """Bytes of numbers that are held at the same time while a video is scored."""
    keeps_all: bool = False
    """Every span that a head gives, overlapping and improbable ones too, as evaluators want them."""
    explains: bool = False
    """The predictions of a video are explained before the next one is asked about: what both need is read once."""


class Answerer(ABC):
    """Answers queries about cached videos."""

    maps: "RowScorer | None" = None
    """What reads relevance maps of rows; None where the head does not say where in the picture."""

    def __init__(self, run: LoadedRun, options: AnsweringOptions) -> None:
        """CheckpointError where the record of the run lacks what its task needs."""
        self.run, self.options = run, options
        self.notes: list[str] = []
        """What was noticed on the way."""
        self._outside: dict[str, float] = {}

    @abstractmethod
    def predictions(
        self, cached: CachedVideo, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        """What the run says about each query, in their order."""

    def predictions_of_videos(
        self, asked: Sequence[tuple[CachedVideo, Sequence[Query]]], on_progress: OnProgress | None = None
    ) -> list[list[Prediction]]:
        """The same for several videos, each with its queries. An error of one video ends all. Progress in videos."""
        answered = []
        for done, (cached, queries) in enumerate(asked):
            if on_progress is not None:
                on_progress(done, len(asked), cached.key)
            answered.append(self.predictions(cached, queries))
        if on_progress is not None:
            on_progress(len(asked), len(asked), "")
        return answered

    def films(self, cached: CachedVideo) -> Sequence[Video]:
        """The video in every space that the run reads: the film is taken from the first that was extracted from one."""
        return (cached.video,)

    @abstractmethod
    def constants(self) -> Mapping[str, Mapping[str, Any]]:
        """What was fitted on validation and is applied to the scores, under its key in config.json."""

    def constants_told(self) -> dict[str, Any]:
        """The same for people, by name; a `threshold` is one of the score track."""
        return {name: value for constants in self.constants().values() for name, value in constants.items()}

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
        has_single_space = len(names) == 1
        return {
            "qle": qle.__version__,
            "run": str(self.run.folder),
            "head": record.head,
            "text encoder": self.run.text.encoder.name,
            "weights": record.digests,
            "trained": record.created.strftime("%Y-%m-%d %H:%M UTC"),
            "space": names[0] if has_single_space else names,
            "backbone": backbones[0] if has_single_space else backbones,
            **self._own_provenance(),
        }

    @abstractmethod
    def _own_provenance(self) -> dict[str, Any]:
        """What only runs of this task have."""


def answerer_of(run: LoadedRun, options: AnsweringOptions) -> Answerer:
    """The answerer for the task of a run; ConfigError where it finds no moments."""
    answerer_class = task_of(run.record.head).answerer_class
    if answerer_class is None:
        raise ConfigError(f"{run.folder}: head {run.record.head} finds videos, not moments in them: it cannot localize")
    return answerer_class(run, options)


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
