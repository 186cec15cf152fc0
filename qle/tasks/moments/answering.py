"""What a run of a head that answers with spans says about a video: its ranked spans, and the saliency of clips for a track.

Such heads look at means of whole clips, so they have no maps that say where in the picture.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from qle.cache.reader import Space, Video
from qle.config import config_to_dict
from qle.data.streams.features import StreamSet
from qle.data.streams.lengths import trimmed_note
from qle.errors import CheckpointError
from qle.heads.moments import MomentHead
from qle.runs.load import LoadedRun
from qle.runs.spaces import streams_of
from qle.runs.videos import CachedVideo
from qle.segments.ranked import Candidates, Ranking, shown_moments
from qle.tasks.answering import Answerer, AnsweringOptions
from qle.tasks.moments.scoring import MomentScorer, predict_moments
from qle.types import OnProgress, Prediction, Query


class MomentAnswerer(Answerer):
    """Answers with ranked spans, and with the saliency of clips for a track."""

    def __init__(self, run: LoadedRun, options: AnsweringOptions) -> None:
        super().__init__(run, options)
        record = run.record
        if record.recipe is None:
            raise CheckpointError(
                f"{run.folder}: the run does not say how its features are made (no recipe): train again"
            )
        assert isinstance(run.head, MomentHead), record.head
        self._head, self._recipe = run.head, record.recipe
        self._ranking = record.ranking or Ranking()
        if not record.is_calibrated:
            self.notes.append("scores and presence of this imported run are raw: they rank, and are no probabilities")
        self._streams: tuple[tuple[Space, ...], StreamSet] | None = None
        self._trimmed: set[str] = set()

    def films(self, cached: CachedVideo) -> Sequence[Video]:
        return self._streams_of(cached.spaces).videos(cached.key)

    def constants(self) -> Mapping[str, Mapping[str, Any]]:
        return {"ranking": config_to_dict(self._ranking)}

    def constants_told(self) -> dict[str, Any]:
        constants = config_to_dict(self._ranking)
        least = constants.pop("threshold")  # of spans; a threshold in the timeline would be one of clips
        return constants | {"least probability shown": least}

    def predictions(
        self, cached: CachedVideo, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        scorer = self._scorer_of(cached.spaces)
        all_candidates = scorer.score(cached.key, [query.text for query in queries], on_progress)
        return self._told(cached.key, queries, all_candidates)

    def predictions_of_videos(
        self, asked: Sequence[tuple[CachedVideo, Sequence[Query]]], on_progress: OnProgress | None = None
    ) -> list[list[Prediction]]:
        """Short videos share passes of the network."""
        told: list[list[Prediction]] = []
        for spaces, group in groupby(asked, key=lambda pair: pair[0].spaces):
            videos = list(group)
            texts: dict[str, list[str]] = {}
            for cached, queries in videos:
                texts.setdefault(cached.key, []).extend(query.text for query in queries)
            scored = self._scorer_of(spaces).score_videos(texts, on_progress)
            for cached, queries in videos:
                told.append(self._told(cached.key, queries, [scored[cached.key, query.text] for query in queries]))
        return told

    def _scorer_of(self, spaces: tuple[Space, ...]) -> MomentScorer:
        return MomentScorer(
            self._head, self.run.text, self._streams_of(spaces), device=self.options.device, precision=self.options.precision,
            memory_bytes=self.options.memory_bytes,
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
            prediction = predict_moments(key, query.text, candidates, self._ranking, query.qid)
            predictions.append(
                prediction
                if self.options.keeps_all
                else replace(prediction, moments=shown_moments(candidates, self._ranking))
            )
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
        """Which videos several spaces have in common is cached once."""
        known = () if self._streams is None else self._streams[0]
        if self._streams is None or not all(map(operator.is_, known, spaces)):
            self._streams = spaces, streams_of(self.run.record, spaces)
        return self._streams[1]

    def _own_provenance(self) -> dict[str, Any]:
        return {
            "features": config_to_dict(self._recipe),
            "ranking": config_to_dict(self._ranking),
            "moments": "all that the head gives" if self.options.keeps_all else "as people are shown them",
            "device": self.options.device.type,
            "precision": self.options.precision,
        }
