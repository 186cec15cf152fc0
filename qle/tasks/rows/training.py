"""Training of heads that score rows: windows of rows in, the AUROC of whole validation videos out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from qle.cache.reader import Space, open_cache
from qle.data.lookup import match_videos
from qle.data.rows import check_rate, choose_rows
from qle.errors import CacheMismatchError, ConfigError
from qle.eval.rows.fitting import fit_localization
from qle.eval.rows.report import evaluate
from qle.eval.rows.scored import ScoredQuery
from qle.heads.base import Head
from qle.runs.record import space_use, token_streams
from qle.tasks.known import learn_known
from qle.tasks.rows.batches.loader import TrainingBatches, taught_sides, training_batches
from qle.tasks.rows.validation import RowValidation
from qle.train.request import Settings, TrainRequest
from qle.train.setup import AnnotationPair, build_model, open_annotations, share_of, space_identity
from qle.train.sides import check_sides
from qle.train.steps.checkpoints import Position
from qle.train.steps.model import TrainedModel
from qle.train.training import Kept, Training


class RowTraining(Training):
    """One space, rows at one rate."""

    score_name = "val_auroc"

    def __init__(self, space: Space, annotations: AnnotationPair, settings: Settings) -> None:
        self.train, self.val, self.notes = annotations.train, annotations.val, annotations.notes
        self.where = space.path.name
        self.identity: Mapping[str, Any] = annotations.identity | {"space": space_identity(space)}
        self._space, self._annotations, self._settings = space, annotations, settings

    @classmethod
    def open(cls, request: TrainRequest, settings: Settings) -> "RowTraining":
        """The space, and annotations that all have their video there."""
        if request.streams:
            raise ConfigError(
                f"--stream: head {request.head} reads the rows of one space, not joined features\n"
                "name the space with --space, or choose another --head"
            )
        space = open_cache(request.cache).space(request.space)
        match = partial(match_videos, space, allow_missing=request.allow_missing)
        annotations = open_annotations(request, match)
        check_rate(space, settings.data.rate_fps)
        sides = taught_sides(space, annotations.train_of, settings.data)
        notes = check_sides(missing_sides(*sides), allow=request.allow_one_sided)
        return cls(space, replace(annotations, notes=(*annotations.notes, *notes)), settings)

    def model(self, device: torch.device) -> TrainedModel:
        """CacheMismatchError where the space lacks what the head reads."""
        queries = [annotation.query for annotation in (*self.train, *self.val)]
        model = build_model(self._settings, token_streams(self._space), queries, device)
        check_streams(model.head, self._space)
        return model

    def batches(self, model: TrainedModel, accelerator: Accelerator) -> TrainingBatches:
        return training_batches(
            self._space,
            self._annotations.train_of,
            self._settings.data,
            share_of(accelerator, self._settings.train.seed),
            streams=model.head.streams,
        )

    def validation(self, accelerator: Accelerator) -> RowValidation:
        return RowValidation(
            accelerator, self._space, self.val, self._annotations.val_of, rate_fps=self._settings.data.rate_fps
        )

    def finish(self, model: TrainedModel, scored: Sequence[ScoredQuery], position: Position, folder: Path) -> Kept:
        """Constants of localization, and the whole evaluation beside the floors of the training annotations."""
        localization, priors = fit_localization(scored), self._annotations.priors(self._length_s)
        report = evaluate(scored, localization, priors=priors)
        record = {
            "space": space_use(self._space, self._settings.data.rate_fps),
            "localization": localization,
            "priors": priors.to_json(),
        }
        return Kept(record=record, metrics=report.to_json(), known=learn_known(model.bank, self.train))

    def _length_s(self, key: str) -> float:
        return choose_rows(self._space.video(key), self._settings.data.rate_fps).duration_s


def missing_sides(has_positive: bool, has_negative: bool) -> dict[str, str]:
    """What rows cannot be learned without, for `check_sides`."""
    missing = {}
    if not has_positive:
        missing["positive"] = (
            "no row of a training video lies inside a window of its query\n"
            "give annotations of queries that happen (relevant_windows), or a higher data.rate_fps"
        )
    if not has_negative:
        missing["negative"] = (
            "in every row of a training video its query happens\n"
            "give queries that happen in a part of their video, or not at all (relevant_windows: [])"
        )
    return missing


def check_streams(head: Head, space: Space) -> None:
    """CacheMismatchError unless the space has all that the head reads."""
    has = token_streams(space)
    if missing := [name for name in head.streams if name not in has]:
        raise CacheMismatchError(
            f"head {head.name} reads {', '.join(head.streams)}, the space {space.path.name} has only {', '.join(has)}\n"
            f"extract with {missing[0]} tokens, or choose another --space or --head"
        )
