"""How good a head that scores rows is on whole validation videos: the number that decides which weights are kept, and the
last word.

Videos are shared out over the processes, each is scored as `qle localize` would, and all tracks go to everyone: a video's
tracks do not depend on who scores it, so every process computes the same numbers and takes the same decision.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from qle.cache.reader import Space
from qle.data.annotations import Annotation
from qle.data.rows import choose_rows
from qle.errors import AnnotationError
from qle.eval.ranking import auroc_of
from qle.eval.rows.scored import ScoredQuery, row_table
from qle.heads.rows import RowHead
from qle.segments.spans import mask_of
from qle.tasks.rows.scoring import RowScorer
from qle.train.steps.model import TrainedModel
from qle.train.training import Validation


class RowValidation(Validation):
    """Scores the annotations of the validation set with a head as it is at the time."""

    def __init__(
        self,
        accelerator: Accelerator,
        space: Space,
        annotations: Sequence[Annotation],
        by_key: Mapping[str, Sequence[Annotation]],
        *,
        rate_fps: float | None,
    ) -> None:
        """annotations: in the order in which they are scored; by_key: the same by the key of their video."""
        self._accelerator, self._space, self._rate_fps = accelerator, space, rate_fps
        self._check_labels(by_key)
        self._mine = self._share(by_key)
        self._order = {annotation.qid: number for number, annotation in enumerate(annotations)}

    def score(self, model: TrainedModel) -> list[ScoredQuery]:
        """All annotations with their tracks, in their order; on every process."""
        assert isinstance(model.head, RowHead), model.head.name
        scorer = RowScorer(model.head, model.bank, device=self._accelerator.device, rate_fps=self._rate_fps)
        scored = []
        for key, annotations in self._mine.items():
            tracks = scorer.score(self._space.video(key), [annotation.query for annotation in annotations])
            scored += [
                ScoredQuery(annotation=annotation, video=key, track=track)
                for annotation, track in zip(annotations, tracks, strict=True)
            ]
        if self._accelerator.num_processes > 1:
            scored = gather_object(scored)
        return sorted(scored, key=lambda query: self._order[query.annotation.qid])

    def value(self, scored: Sequence[ScoredQuery]) -> float:
        return frame_auroc(scored)

    def _check_labels(self, by_key: Mapping[str, Sequence[Annotation]]) -> None:
        """AnnotationError before the first step rather than after it, where validation could not tell good from bad."""
        labels = []
        for key, annotations in by_key.items():
            choice = choose_rows(self._space.video(key), self._rate_fps)
            labels += [mask_of(annotation.windows, choice.edges_s)[choice.valid] for annotation in annotations]
        inside = np.concatenate(labels)
        if not 0 < inside.sum() < len(inside):
            where = "outside" if inside.any() else "inside"
            raise AnnotationError(
                f"validation: no row of the {len(labels)} annotated queries lies {where} their windows: nothing can be ranked\n"
                "give a --val file with queries that happen in a part of their video"
            )

    def _share(self, by_key: Mapping[str, Sequence[Annotation]]) -> dict[str, Sequence[Annotation]]:
        """Videos of this process: longest first, in turn."""
        keys = sorted(by_key, key=lambda key: (-self._space.video(key).num_rows * len(by_key[key]), key))
        mine = keys[self._accelerator.process_index :: self._accelerator.num_processes]
        return {key: by_key[key] for key in mine}


def frame_auroc(scored: Sequence[ScoredQuery]) -> float:
    """Over the rows of all queries and videos together: needs no threshold and no calibration, which are fitted later."""
    table = row_table(scored)
    logits = np.concatenate([query.track.logit for query in scored])[table.usable]
    score = auroc_of(logits, table.label[table.usable])
    if math.isnan(score):
        raise AnnotationError(
            "validation: of the rows with finite tokens all lie inside, or all outside, the windows: nothing can be ranked\n"
            "look for broken tokens with qle cache verify --deep, or give a --val file with more videos"
        )
    return score
