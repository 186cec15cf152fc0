"""What a run of a head that scores rows says about a video: moments that are cut from its scores, and maps of the pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from qle.config import config_to_dict
from qle.data.rows import choose_rows
from qle.heads.rows import RowHead
from qle.runs.load import LoadedRun
from qle.runs.videos import CachedVideo
from qle.tasks.answering import Answerer, AnsweringOptions
from qle.tasks.rows.scoring import RowScorer, predict
from qle.types import OnProgress, Prediction, Query

KEPT_SHARE = 8
"""Part of the memory of a pass that the reading of a video may take to be kept for its explanation: an eighth."""


class RowAnswerer(Answerer):
    """Answers with moments that are cut from the scores of rows."""

    maps: RowScorer

    def __init__(self, run: LoadedRun, options: AnsweringOptions) -> None:
        super().__init__(run, options)
        assert isinstance(run.head, RowHead), run.record.head
        self.maps = self._scorer = RowScorer(
            run.head, run.text, device=options.device, rate_fps=run.record.rate_fps, memory_bytes=options.memory_bytes,
            precision=options.precision, known=run.known,
            keep_bytes=options.memory_bytes // KEPT_SHARE if options.explains else 0,
        )  # fmt: skip

    def constants(self) -> Mapping[str, Mapping[str, Any]]:
        return {"localization": config_to_dict(self.run.record.localization)}

    def predictions(
        self, cached: CachedVideo, queries: Sequence[Query], on_progress: OnProgress | None = None
    ) -> list[Prediction]:
        tracks = self._scorer.score(cached.video, [query.text for query in queries], on_progress)
        # Rows that were on screen and yet have no tokens to go by; what happens in them cannot be found.
        was_shown = choose_rows(cached.video, self._scorer.rate_fps).valid
        self._note_unusable(int((was_shown & ~tracks[0].valid).sum()), len(was_shown), cached.key)
        constants = self.run.record.localization
        self._note_outside({query.text: track.familiarity for query, track in zip(queries, tracks, strict=True)})
        return [
            predict(cached.key, query.text, track, constants, query.qid)
            for query, track in zip(queries, tracks, strict=True)
        ]

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
