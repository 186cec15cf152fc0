"""Free-text queries over videos, with a trained run: when does each happen, and how sure is that?

    run folder + queries + (cached videos | video files) -> tracks or spans -> moments, presence, and where wanted a report

A file that is not in the cache is extracted with the very description of the run's spaces, and then scored from a cache like
any other, so that the answer does not depend on the way the video came in. Everything that a user can get wrong (queries,
names, weights, space) is refused before the first frame is decoded or the first row is read.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from qle.errors import CacheMissingError, ConfigError, QleError
from qle.explain.evidence import explain
from qle.explain.explained import ExplainedPrediction
from qle.localize.moment_files import to_csv
from qle.localize.page import calibration_of, write_page
from qle.localize.pictures import Illustrator
from qle.localize.request import LocalizeRequest, LocalizeResult
from qle.localize.sources import Asked, cached, extracted
from qle.outputs import one_line
from qle.runs.load import load_run
from qle.runs.videos import CachedVideo
from qle.runtime import resolve_device
from qle.tasks.answering import Answerer, AnsweringOptions, answerer_of
from qle.text.queries import check_queries
from qle.types import OnProgress, Prediction, Query

NAMED = 3
"""Skipped queries that a note names."""


def localize(request: LocalizeRequest, on_progress: OnProgress = lambda done, total, what: None) -> LocalizeResult:
    """Ask every query. An error of one video among many ends with that video; where all fail, the first error is raised."""
    _check_outputs(request)
    device = resolve_device(request.device)
    run = load_run(request.checkpoint, device)
    check_queries(request.queries, run.text.encoder)
    options = AnsweringOptions(
        device=device,
        precision=request.precision,
        memory_bytes=request.memory_bytes,
        keeps_all=request.keeps_all,
        explains=request.has_pictures,
    )
    answerer = answerer_of(run, options)
    if request.heatmaps is not None and answerer.maps is None:
        raise ConfigError(
            f"--heatmaps: head {run.record.head} answers with spans and does not say where in the picture\n"
            "--report shows its moments over time, with frames where the film is known"
        )
    with Illustrator(heatmaps=request.heatmaps, has_page=request.report is not None) as illustrator:
        answers = _Answers(request, answerer, illustrator, on_progress)
        videos = (
            extracted(request, run.record, on_progress, answers.skipped)
            if request.videos
            else cached(request, run.record, answers.skipped)
        )
        with closing(videos):
            for asked in videos:
                answers.add(asked)
        return answers.finish()


def _check_outputs(request: LocalizeRequest) -> None:
    """Before hours of work, not after them."""
    if request.report is not None and request.report.is_dir():
        raise ConfigError(f"--report {request.report}: a folder stands there; name the file")
    if request.heatmaps is not None and request.heatmaps.exists() and not request.heatmaps.is_dir():
        raise ConfigError(f"--heatmaps {request.heatmaps}: a file stands there; name a folder")


class _Answers:
    """Collects what the videos say."""

    def __init__(
        self, request: LocalizeRequest, answerer: Answerer, illustrator: Illustrator, on_progress: OnProgress
    ) -> None:
        self._request, self._answerer, self._on_progress = request, answerer, on_progress
        self._illustrator = illustrator
        self._answered: list[tuple[int, Prediction]] = []
        self._illustrated: list[int] = []
        """Numbers of the queries, in the order in which the illustrator was given their predictions."""
        self._first_error: QleError | None = None
        self._faults: list[str] = []
        """Notes on videos that are partial or have damaged rows."""
        self.skipped: list[Query] = []
        self._result = LocalizeResult(provenance=answerer.provenance())

    def add(self, asked: Asked) -> None:
        """Score one video for its queries, and keep what pictures need while its rows are at hand."""
        try:
            if asked.video is None:
                raise asked.error or CacheMissingError(f"{asked.name} is not in the cache")
            predictions = self._predictions(asked.video, asked.query_numbers)
        except QleError as error:
            self._first_error = self._first_error or error
            self._result.failures[asked.name] = str(error).splitlines()[0]
            return
        records = [space.video(asked.video.key).record for space in asked.video.spaces]
        self._faults += [f"{asked.name}: {record.source.faults}" for record in records if record.source.faults]
        self._answered += zip(asked.query_numbers, predictions, strict=True)
        for number in asked.query_numbers:
            if (name := self._request.queries[number].video) is not None:
                self._result.names[asked.video.key] = name
        if self._request.has_pictures:
            self._explain(asked.video, predictions, asked.source)
            self._illustrated += asked.query_numbers

    def _explain(self, cached: CachedVideo, predictions: Sequence[Prediction], source: Path | None) -> None:
        """The pictures of the film, where it is, are made while the next video is scored."""
        explained = explain(
            self._answerer, cached, predictions, num_frames=self._request.num_frames,
            with_attribution=self._request.report is not None,
        )  # fmt: skip
        films = self._answerer.films(cached)
        film = next((video for video in films if video.record.source.codec), films[0])
        self._illustrator.add(explained, film, source)

    def finish(self) -> LocalizeResult:
        if self._first_error is not None and not self._answered:
            raise self._first_error
        result = self._result
        result.predictions = [prediction for _, prediction in sorted(self._answered, key=lambda pair: pair[0])]
        explained = self._pictures()
        result.skipped = [str(query) for query in self.skipped]
        result.notes = list(
            dict.fromkeys([*self._faults, *self._answerer.notes, *(answer.note for answer in explained if answer.note)])
        )
        if self.skipped:
            few = "; ".join(f"{query} about {query.video!r}" for query in self.skipped[:NAMED])
            more = ", ..." if len(self.skipped) > NAMED else ""
            result.notes.insert(0, f"skipped {len(self.skipped)} queries about videos that are not there: {few}{more}")
        if self._request.report is not None:
            provenance = result.provenance | {"created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
            csv = to_csv(result.predictions)
            write_page(self._request.report, explained, provenance, calibration_of(self._answerer), csv)
        return result

    def _pictures(self) -> list[ExplainedPrediction]:
        """The explained predictions with their pictures, in the order of the queries, then of the videos."""
        made = self._illustrator.finish()
        shown = [pair for video in made for pair in zip(video.explained, video.files, strict=True)]
        order = sorted(range(len(shown)), key=lambda number: self._illustrated[number])
        self._result.pictures = [path for number in order for path in shown[number][1]]
        return [shown[number][0] for number in order]

    def _predictions(self, cached: CachedVideo, numbers: Sequence[int]) -> list[Prediction]:
        def report(done: int, total: int, key: str) -> None:
            self._on_progress(done, total, f"scoring {one_line(key)}")

        queries = [self._request.queries[number] for number in numbers]
        return [self._kept(prediction) for prediction in self._answerer.predictions(cached, queries, report)]

    def _kept(self, prediction: Prediction) -> Prediction:
        moments = [moment for moment in prediction.moments if moment.score >= self._request.min_score]
        return replace(prediction, moments=tuple(moments[: self._request.top]))
