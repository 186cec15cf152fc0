"""Training of heads that rank videos: pairs of text and video in, the ranks of validation videos out.

--stream SPACE[:STREAM] -> FrameSource -> RetrievalBatch -> head    validation: VideoRanker -> similarity -> R@1, then MRR
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from qle.cache.reader import open_cache
from qle.data.annotations import Annotation
from qle.data.pairs import PairTable, pair_table
from qle.data.rows import choose_rows
from qle.data.streams.recipe import StreamChoice
from qle.errors import AnnotationError, ConfigError
from qle.eval.floors import Priors, priors_of
from qle.eval.retrieval import retrieval_metrics, retrieval_report
from qle.heads.retrieval import FRAMES, RetrievalHead
from qle.runs.record import space_use
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.tasks.retrieval.batches.loader import RetrievalBatches, retrieval_batches
from qle.tasks.retrieval.scoring import VideoRanker
from qle.train.request import Settings, TrainRequest
from qle.train.setup import AnnotationPair, build_model, open_annotations, share_of, space_identity
from qle.train.sides import check_sides
from qle.train.steps.checkpoints import Position
from qle.train.steps.model import TrainedModel
from qle.train.training import Kept, Training, Validation

TIE_SHARE = 1e-4
"""Share of MRR in the number that chooses the best step: less than one text of ten thousand, so it only tells equal R@1
apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """What validation leaves."""

    pairs: PairTable
    similarity: np.ndarray
    """(pairs, videos) float32"""


class RetrievalTraining(Training):
    """One stream, a few frames of each video."""

    score_name = "val_r@1"

    def __init__(self, frames: FrameSource, annotations: AnnotationPair, settings: Settings) -> None:
        self.train, self.val, self.notes = annotations.train, annotations.val, annotations.notes
        self.where = frames.where
        self.identity: dict[str, Any] = {
            **annotations.identity,
            "space": space_identity(frames.space),
            "stream": frames.stream,
        }
        self._frames, self._annotations, self._settings = frames, annotations, settings

    @classmethod
    def open(cls, request: TrainRequest, settings: Settings) -> "RetrievalTraining":
        """The stream, and annotations whose videos it has; captions need no times."""
        frames = FrameSource.open(open_cache(request.cache), stream_choice(request), settings.head.num_frames)
        match = partial(frames.match, allow_missing=request.allow_missing)
        annotations = open_annotations(request, match, allow_unlabelled=True)
        pairs = pair_table(annotations.train_of)
        notes = check_sides(missing_sides(pairs), allow=request.allow_one_sided)
        return cls(frames, replace(annotations, notes=(*annotations.notes, *notes)), settings)

    def model(self, device: torch.device) -> TrainedModel:
        # Queries are not encoded here: a hundred thousand captions with all their words fit into no memory (see the loader).
        model = build_model(self._settings, {FRAMES: (self._frames.dim,)}, (), device)
        for query in sorted({annotation.query for annotation in (*self.train, *self.val)}):
            model.text.check(query)
        return model

    def batches(self, model: TrainedModel, accelerator: Accelerator) -> RetrievalBatches:
        return retrieval_batches(
            self._frames,
            self._annotations.train_of,
            self._settings.data,
            share_of(accelerator, self._settings.train.seed),
            text=model.bank if model.text.is_frozen else None,
        )

    def validation(self, accelerator: Accelerator) -> "RetrievalValidation":
        return RetrievalValidation(accelerator, self._frames, self._annotations.val_of)

    def finish(self, model: TrainedModel, scored: ScoredPairs, position: Position, folder: Path) -> Kept:
        """Nothing is fitted; the whole evaluation beside chance."""
        report = retrieval_report(scored.similarity, scored.pairs)
        record = {
            "space": space_use(self._frames.space, None),
            "recipe": self._frames.recipe,
            "priors": self._priors().to_json(),
        }
        return Kept(record=record, metrics=report.to_json())

    def _priors(self) -> Priors:
        """What can be guessed from what was trained and chosen on; a caption without times counts as true of its whole video."""
        keys = self._annotations.keys
        silent = {annotation.video for annotation in (*self.train, *self.val) if annotation.duration_s is None}
        lengths = {name: choose_rows(self._frames.space.video(keys[name]), None).duration_s for name in silent}
        train, val = (
            [
                annotation
                if annotation.is_labelled
                else replace(
                    annotation, windows=((0.0, annotation.duration_s or lengths[annotation.video]),), is_labelled=True
                )
                for annotation in annotations
            ]
            for annotations in (self.train, self.val)
        )
        return priors_of(train, lengths, val=val, keys=keys)


class RetrievalValidation(Validation):
    """Every text against every video of the validation annotations; videos are shared out over the processes."""

    def __init__(
        self, accelerator: Accelerator, frames: FrameSource, by_key: Mapping[str, Sequence[Annotation]]
    ) -> None:
        self._accelerator, self._frames = accelerator, frames
        self._pairs = pair_table(by_key)
        if len(self._pairs.videos) < 2:
            raise AnnotationError(
                f"--val: all annotations are of {self._pairs.videos[0]!r}: there is nothing to rank\n"
                "give a --val file with more videos"
            )

    def score(self, model: TrainedModel) -> ScoredPairs:
        """On every process the same."""
        assert isinstance(model.head, RetrievalHead), model.head.name
        ranker = VideoRanker(model.head, model.bank, self._frames, device=self._accelerator.device)
        rank, count = self._accelerator.process_index, self._accelerator.num_processes
        mine = ranker.similarity(self._pairs.queries, self._pairs.videos[rank::count])
        parts = gather_object([mine]) if count > 1 else [mine]
        similarity = np.empty((len(self._pairs.queries), len(self._pairs.videos)), np.float32)
        for first, part in enumerate(parts):
            similarity[:, first::count] = part
        return ScoredPairs(pairs=self._pairs, similarity=similarity[self._pairs.query])

    def value(self, scored: ScoredPairs) -> float:
        """R@1 from text to video; between equal ones the better MRR."""
        also_true = scored.pairs.is_true(np.arange(len(scored.pairs)), np.arange(len(scored.pairs.videos)))
        metrics = retrieval_metrics(scored.similarity, scored.pairs.video, also_true)["text_to_video"]
        return (metrics["r@1"] + TIE_SHARE * metrics["mrr"]) / (1 + TIE_SHARE)


def missing_sides(pairs: PairTable) -> dict[str, str]:
    """What a ranking cannot be learned without, for `check_sides`. A single video is refused where batches are made."""
    numbers = np.arange(len(pairs))
    if len(pairs.described) < 2 or not all(pairs.is_true(numbers[[k]], pairs.described).all() for k in numbers):
        return {}
    why = "every text is true of every video, so none is told from another"
    return {"negative": f"{why}\ngive texts that are true of some videos only"}


def stream_choice(request: TrainRequest) -> StreamChoice:
    """What --stream or --space says."""
    if len(request.streams) > 1:
        raise ConfigError(
            f"--stream is given {len(request.streams)} times: head {request.head} reads frames of one stream\nname one"
        )
    if request.streams and request.space is not None:
        raise ConfigError("--space and --stream: name the space in --stream, once (SPACE:STREAM)")
    return StreamChoice.parse(request.streams[0]) if request.streams else StreamChoice(space=request.space)
