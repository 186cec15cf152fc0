"""Training of heads that answer with spans: items of clips and a query in, ranked moments of whole validation videos out.

--stream ... -> StreamSet -> MomentBatch -> head    validation: MomentScorer -> Candidates -> mAP (train.select)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from qle.cache.reader import open_cache
from qle.data.annotations import Annotation
from qle.data.streams.features import StreamSet
from qle.data.streams.recipe import ENDPOINTS, StreamChoice, with_endpoints
from qle.errors import AnnotationError, ConfigError
from qle.eval.moments.fitting import fit_ranking
from qle.eval.moments.highlights import LEVELS
from qle.eval.moments.metrics import MOST_LEVEL_RATERS
from qle.eval.moments.ranked import RankedQuery
from qle.eval.moments.report import evaluate_ranked, validation_value
from qle.heads import head_class
from qle.heads.moments import FEATURES, MomentHead
from qle.runs.record import space_use
from qle.segments.ranked import Ranking
from qle.tasks.known import learn_known
from qle.tasks.moments.batches.loader import MomentBatches, moment_batches
from qle.tasks.moments.batches.negatives import any_negative
from qle.tasks.moments.scoring import MomentScorer, score_matched
from qle.text.base import TextEncoder
from qle.train.config import Select
from qle.train.request import Settings, TrainRequest
from qle.train.setup import AnnotationPair, build_model, open_annotations, share_of, space_identity
from qle.train.sides import check_sides
from qle.train.steps.checkpoints import Position
from qle.train.steps.model import TrainedModel
from qle.train.training import Kept, Training, Validation

_LIKED = (
    f"a clip that one of at most {MOST_LEVEL_RATERS} raters gave {LEVELS['VeryGood']} or more",
    "has such a clip",
)
LACKS: dict[str, tuple[str, str]] = {
    "HL-mAP": _LIKED,
    "HIT@1": _LIKED,
    "top5-mAP": (f"ratings by more than {MOST_LEVEL_RATERS} people", "has them"),
}
"""Choices of train.select that are of highlights: what annotations may lack for them, and what those have that do not."""


class MomentTraining(Training):
    """Several streams, joined clip by clip."""

    def __init__(self, streams: StreamSet, annotations: AnnotationPair, settings: Settings) -> None:
        self.train, self.val = annotations.train, annotations.val
        self.notes = (*streams.notes, *annotations.notes)
        check_measurable(self.val, settings.train.select)
        self.score_name = f"val_{settings.train.select}"
        recipe = streams.recipe
        self.where = f"{streams.where}: {recipe.dim:,} numbers a clip, {recipe.window_clips:,} clips a window"
        first, *more = streams.spaces
        self.identity: dict[str, Any] = {
            **annotations.identity,
            "space": space_identity(first),
            "more_spaces": {str(number): space_identity(space) for number, space in enumerate(more, start=1)},
            "streams": [
                f"{part.space[:12]}:{part.stream}{ENDPOINTS if part.has_endpoints else ''}" for part in recipe.parts
            ],
        }
        self._streams, self._annotations, self._settings = streams, annotations, settings

    @classmethod
    def open(cls, request: TrainRequest, settings: Settings) -> "MomentTraining":
        """The streams, and annotations whose videos all of them hold."""
        streams = StreamSet.open(open_cache(request.cache), stream_choices(request), settings.data)
        match = partial(streams.match, allow_missing=request.allow_missing)
        annotations = open_annotations(request, match, allow_unlabelled=True)  # ratings alone are worth something
        check_known(annotations.train, "--annotations")
        check_known(annotations.val, "--val")
        notes = check_sides(missing_sides(annotations.train_of, settings), allow=request.allow_one_sided)
        return cls(streams, replace(annotations, notes=(*annotations.notes, *notes)), settings)

    def model(self, device: torch.device) -> TrainedModel:
        learned_from = [annotation.query for annotation in self.train]
        queries = [annotation.query for annotation in (*self.train, *self.val)]

        head = head_class(self._settings.head_name)
        assert issubclass(head, MomentHead), head

        def settle(config: Any, text: TextEncoder) -> Any:
            settled = head.settled(config, learned_from, text)
            self.notes = tuple(dict.fromkeys((*self.notes, *head.notes(settled))))
            return settled

        shapes = {FEATURES: (self._streams.recipe.dim,)}
        return build_model(self._settings, shapes, queries, device, settle=settle)

    def batches(self, model: TrainedModel, accelerator: Accelerator) -> MomentBatches:
        return moment_batches(
            self._streams,
            self._annotations.train_of,
            self._settings.data,
            share_of(accelerator, self._settings.train.seed),
            text=model.bank if model.text.is_frozen else None,
        )

    def validation(self, accelerator: Accelerator) -> "MomentValidation":
        return MomentValidation(
            accelerator, self._streams, self.val, self._annotations.val_of, self._settings.train.select
        )

    def finish(self, model: TrainedModel, scored: Sequence[RankedQuery], position: Position, folder: Path) -> Kept:
        """Calibration fitted, and the whole evaluation beside the floors of the training annotations."""
        ranking, priors = fit_ranking(scored, Ranking()), self._annotations.priors(self._length_s)
        report = evaluate_ranked(scored, ranking, priors=priors)
        first, *more = self._streams.spaces
        record = {
            "space": space_use(first, None),
            "more_spaces": tuple(space_use(space, None) for space in more),
            "recipe": self._streams.recipe,
            "ranking": ranking,
            "priors": priors.to_json(),
        }
        return Kept(record=record, metrics=report.to_json(), known=learn_known(model.bank, self.train))

    def _length_s(self, key: str) -> float:
        return self._streams.times(key).duration_s


class MomentValidation(Validation):
    """Whole videos, shared out over the processes; each is scored as `qle localize` would."""

    def __init__(
        self, accelerator: Accelerator, streams: StreamSet, annotations: Sequence[Annotation],
        by_key: Mapping[str, Sequence[Annotation]], select: Select,
    ) -> None:  # fmt: skip
        """annotations: in the order in which they are scored; by_key: the same by the key of their video."""
        self._accelerator, self._streams, self._select = accelerator, streams, select
        keys = sorted(by_key)[accelerator.process_index :: accelerator.num_processes]
        self._mine = {key: by_key[key] for key in keys}
        self._annotations = annotations
        self._order = {annotation.qid: number for number, annotation in enumerate(annotations)}

    def score(self, model: TrainedModel) -> list[RankedQuery]:
        """All annotations with their candidates, in their order; on every process."""
        assert isinstance(model.head, MomentHead), model.head.name
        scorer = MomentScorer(model.head, model.bank, self._streams, device=self._accelerator.device)
        # A process without a video still takes part in gathering.
        scored = score_matched(scorer, self._mine, self._annotations) if self._mine else []
        if self._accelerator.num_processes > 1:
            scored = gather_object(scored)
        return sorted(scored, key=lambda ranked: self._order[ranked.annotation.qid])

    def value(self, scored: Sequence[RankedQuery]) -> float:
        return validation_value(scored, self._select)


def stream_choices(request: TrainRequest) -> tuple[StreamChoice, ...]:
    """What --stream says; none: the frames of the one space. Where no name asks for temporal endpoints, the last has them."""
    if request.streams and request.space is not None:
        raise ConfigError("--space and --stream: name the spaces in --stream, once each (SPACE:STREAM+tef)")
    choices = [StreamChoice.parse(text) for text in request.streams] or [StreamChoice(space=request.space)]
    return with_endpoints(choices)


def missing_sides(annotations: Mapping[str, Sequence[Annotation]], settings: Settings) -> dict[str, str]:
    """What spans cannot be learned without, for `check_sides`. Annotations by the key of their video."""
    missing = {}
    if not any(annotation.is_present or _is_liked(annotation) for part in annotations.values() for annotation in part):
        missing["positive"] = (
            "no query of a training video has a window, or a clip that was rated above 0\n"
            "give annotations of queries that happen (relevant_windows)"
        )
    head = head_class(settings.head_name)
    assert issubclass(head, MomentHead), head
    wants = settings.data.has_negatives and head.uses_negatives
    if wants and not any_negative(annotations, settings.data.source_pattern):
        missing["negative"] = (
            "every query is of one recording, or means the same as all others\n"
            "give annotations of several recordings and queries, or data.has_negatives=false"
        )
    return missing


def _is_liked(annotation: Annotation) -> bool:
    return annotation.saliency is not None and bool((np.nan_to_num(annotation.saliency) > 0).any())


def check_known(annotations: Sequence[Annotation], flag: str) -> None:
    """AnnotationError for rows that say nothing: a hidden test set is here by mistake."""
    if unknown := [
        annotation for annotation in annotations if not annotation.is_labelled and annotation.saliency is None
    ]:
        raise AnnotationError(
            f"{flag}: {len(unknown)} of {len(annotations)} rows have neither windows nor ratings, first {unknown[0].qid!r}\n"
            "relevant_windows: [] says that a query never happens; rows of a hidden test set teach nothing"
        )


def check_measurable(annotations: Sequence[Annotation], select: Select) -> None:
    """AnnotationError before the first step rather than after it, where validation could not tell good from bad."""
    if any(_can_tell(annotation, select) for annotation in annotations):
        return
    lacks, gives = LACKS.get(select, ("a window", "happens in its video"))
    raise AnnotationError(
        f"validation: none of the {len(annotations)} annotated queries has {lacks}, which train.select={select} needs\n"
        f"give a --val file in which some query {gives}, or another train.select"
    )


def _can_tell(annotation: Annotation, select: Select) -> bool:
    """Whether some answer to it is better than another by that number (eval/moment_metrics.py)."""
    if select not in LACKS:
        return annotation.is_present
    if annotation.saliency is None:
        return False
    has_many_raters = annotation.saliency.shape[1] > MOST_LEVEL_RATERS
    if select == "top5-mAP":
        return has_many_raters and bool(np.isfinite(annotation.saliency).any())
    return not has_many_raters and bool((np.nan_to_num(annotation.saliency) >= LEVELS["VeryGood"]).any())
