"""Training of the toy task: all pairs of a batch are whole videos; the better step has the best frame inside more often."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from qle.cache.reader import Space, open_cache
from qle.data.annotations import Annotation
from qle.data.loading.plan import Placement
from qle.data.lookup import match_videos
from qle.data.rows import choose_rows
from qle.runs.record import space_use, token_streams
from qle.segments.spans import mask_of
from qle.train.request import Settings, TrainRequest
from qle.train.setup import AnnotationPair, build_model, open_annotations, space_identity
from qle.train.steps.checkpoints import Position
from qle.train.steps.model import TrainedModel
from qle.train.training import Kept, Training, Validation
from tests.toy_task.head import ToyBatch


@dataclass(frozen=True, kw_only=True)
class ToyDataConfig:
    pairs_per_batch: int = 4


class ToyBatches:
    placement = Placement(name="mapped", size_bytes=0, reason="small")
    wait_s = 0.0
    num_nonfinite_rows = 0

    def __init__(self, space: Space, annotations: Mapping[str, Sequence[Annotation]], size: int, seed: int) -> None:
        self._pairs = [(space.video(key), one) for key, asked in annotations.items() for one in asked if one.is_present]
        self._size, self._seed = size, seed
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self._pairs) // self._size)

    def __iter__(self) -> Iterator[ToyBatch]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._pairs))
        for number in range(self._first, len(self)):
            yield self._batch([self._pairs[place] for place in order[number * self._size :][: self._size]])

    def _batch(self, pairs: Sequence[tuple[Any, Annotation]]) -> ToyBatch:
        longest = max(video.num_rows for video, _ in pairs)
        frames = torch.zeros(len(pairs), longest, pairs[0][0].stored("frame").shape[1])
        mask, inside = torch.zeros(2, len(pairs), longest, dtype=torch.bool)
        for place, (video, one) in enumerate(pairs):
            frames[place, : video.num_rows] = torch.from_numpy(np.float32(video.rows_of("frame")[:]))
            mask[place, : video.num_rows] = True
            edges_s = choose_rows(video, None).edges_s
            inside[place, : video.num_rows] = torch.from_numpy(mask_of(one.windows, edges_s))
        return ToyBatch(frames=frames, mask=mask, inside=inside, queries=tuple(one.query for _, one in pairs))

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self._epoch, self._first = epoch, first_batch

    def close(self) -> None:
        pass


class ToyValidation(Validation):
    def __init__(self, batches: ToyBatches) -> None:
        self._batches = batches

    def score(self, model: TrainedModel) -> list[bool]:
        hits = []
        with torch.no_grad():
            for batch in self._batches:
                logit = model.head(batch.with_words(model.text(batch.queries))).logit
                hits += batch.inside.gather(1, logit.argmax(1, keepdim=True))[:, 0].tolist()
        return hits

    def value(self, scored: list[bool]) -> float:
        return float(np.mean(scored))


class ToyTraining(Training):
    score_name = "val_hit"

    def __init__(self, space: Space, annotations: AnnotationPair, settings: Settings) -> None:
        self.train, self.val, self.notes = annotations.train, annotations.val, annotations.notes
        self.where = space.path.name
        self.identity = annotations.identity | {"space": space_identity(space)}
        self._space, self._annotations, self._settings = space, annotations, settings

    @classmethod
    def open(cls, request: TrainRequest, settings: Settings) -> "ToyTraining":
        space = open_cache(request.cache).space(request.space)
        match = partial(match_videos, space, allow_missing=request.allow_missing)
        return cls(space, open_annotations(request, match), settings)

    def model(self, device: torch.device) -> TrainedModel:
        queries = [annotation.query for annotation in (*self.train, *self.val)]
        return build_model(self._settings, token_streams(self._space), queries, device)

    def batches(self, model: TrainedModel, accelerator: Accelerator) -> ToyBatches:
        return self._of(self._annotations.train_of)

    def validation(self, accelerator: Accelerator) -> ToyValidation:
        return ToyValidation(self._of(self._annotations.val_of))

    def finish(self, model: TrainedModel, scored: list[bool], position: Position, folder: Path) -> Kept:
        priors = self._annotations.priors(lambda key: choose_rows(self._space.video(key), None).duration_s)
        record = {
            "space": space_use(self._space, None),
            "priors": priors.to_json(),
            "constants": {"hit_rate": float(np.mean(scored))},
        }
        return Kept(record=record, metrics={"hit": float(np.mean(scored))})

    def _of(self, annotations: Mapping[str, Sequence[Annotation]]) -> ToyBatches:
        size, seed = self._settings.data.pairs_per_batch, self._settings.train.seed
        return ToyBatches(self._space, annotations, size, seed)
