"""One moment for each query: the stretch of time that its best frame stands for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qle.data.rows import choose_rows
from qle.runs.videos import CachedVideo
from qle.tasks.answering import Answerer
from qle.tasks.scoring import scoring
from qle.types import Moment, OnProgress, Prediction, Query, ScoreTrack
from tests.toy_task.head import ToyHead


class ToyAnswerer(Answerer):
    def predictions(
        self, cached: CachedVideo, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        head, text = self.run.head, self.run.text
        assert isinstance(head, ToyHead)
        frames = torch.from_numpy(np.float32(cached.video.rows_of("frame")[:]))
        with scoring([head, text.encoder], self.options.device, self.options.precision):
            sentences = text.encode(tuple(query.text for query in queries)).sentence
            logits = head.score(frames.expand(len(queries), -1, -1), sentences).numpy()
        return [self._prediction(cached, query, logit) for query, logit in zip(queries, logits, strict=True)]

    def constants(self) -> Mapping[str, Mapping[str, Any]]:
        return {"constants": self.run.record.constants}

    def _own_provenance(self) -> dict[str, Any]:
        return {"frames": "all"}

    def _prediction(self, cached: CachedVideo, query: Query, logit: np.ndarray) -> Prediction:
        choice = choose_rows(cached.video, None)
        probability = 1 / (1 + np.exp(-logit))
        best = int(logit.argmax())
        moment = Moment(
            start_s=float(choice.edges_s[best]), end_s=float(choice.edges_s[best + 1]), score=float(probability[best])
        )
        return Prediction(
            video=cached.key, query=query.text, qid=query.qid, duration_s=choice.duration_s, moments=(moment,),
            best=moment, presence=moment.score, probability=probability,
            track=ScoreTrack(times_s=choice.times_s, edges_s=choice.edges_s, valid=choice.valid, logit=logit),
        )  # fmt: skip
