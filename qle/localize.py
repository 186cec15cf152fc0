"""Free-text queries over videos, with a trained run: when does each happen, and how sure is that?

    run folder + queries + (cached videos | video files) -> tracks -> moments, presence, and where wanted pictures and a report

A file that is not in the cache is extracted with the very description of the run's space, and then scored from a cache like
any other, so that the answer does not depend on the way the video came in. Everything that a user can get wrong (queries,
names, weights, space) is refused before the first frame is decoded or the first row is read.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import qle
from qle.cache.reader import Space, Video, open_cache
from qle.config import config_to_dict
from qle.data.rows import choose_rows
from qle.errors import CacheMismatchError, CacheMissingError, ConfigError, InputError, QleError
from qle.evidence import MAX_SIDE, NUM_FRAMES, calibration_of, explain_frames, write_heatmaps, write_page
from qle.explain.explained import ExplainedPrediction
from qle.explain.pictures import PAGE_SIDE
from qle.extract.plan import discover
from qle.extract.progress import Progress
from qle.extract.uncached import find_space, supply
from qle.heads.base import RowHead
from qle.moment_files import one_line
from qle.outputs import MOMENTS_SUFFIXES, REPORT_SUFFIXES, check_output
from qle.predict import RowScorer, predict
from qle.query_files import Query
from qle.runs import LoadedRun, check_space, load_run
from qle.runtime import resolve_device
from qle.types import Prediction, ScoreTrack, VideoSource

OnProgress = Callable[[int, int, str], None]

MEMORY_BYTES = 512 << 20
NAMED = 3
"""Skipped queries that a note names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizeRequest:
    """What to look for, where, with which run."""

    checkpoint: Path
    """Folder of a run."""
    queries: tuple[Query, ...]
    cache: Path | None = None
    video_ids: tuple[str, ...] = ()
    """Cached videos by key or a part of it; none: all of the space."""
    videos: tuple[str, ...] = ()
    """Files, folders, globs or manifests instead: videos that need not be cached."""
    root: Path | None = None
    """What keys of `videos` are relative to."""
    weights: str | None = None
    """File or folder of the run's backbone, where videos must be extracted and it has none built in."""
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    top: int | None = None
    """Most moments of a query in a video; None: all."""
    min_score: float = 0.0
    """Moments below this are left out."""
    heatmaps: Path | None = None
    """Folder for pictures of the best frames."""
    report: Path | None = None
    out: Path | None = None
    """Where the caller will write the moments: refused where that is one of the videos."""
    num_frames: int = NUM_FRAMES
    """Pictures of a query in a video."""
    memory_bytes: int = MEMORY_BYTES
    allow_missing: bool = False
    """Queries about a video that is not there are skipped instead of being an error."""
    is_one_video: bool = False
    """What is wanted belongs to one film (subtitles): more of them are refused before any work."""

    def __post_init__(self) -> None:
        if not self.queries:
            raise ConfigError('nothing to look for: pass --query "..." or --queries FILE')
        if not self.videos and self.cache is None:
            raise ConfigError("nowhere to look: pass --cache FOLDER (videos that are extracted) or --video FILE")
        if self.videos and self.video_ids:
            raise ConfigError("--video-id chooses among cached videos and --video names files: pass one of the two")
        if self.top is not None and self.top < 1:
            raise ConfigError(f"--top {self.top}: expected 1 or more")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"--min-score {self.min_score}: expected 0 to 1, scores are probabilities")
        if self.num_frames < 1:
            raise ConfigError(f"--frames {self.num_frames}: expected 1 or more")


@dataclass(slots=True, kw_only=True)
class LocalizeResult:
    """What was found."""

    provenance: dict[str, Any]
    """What the numbers come from; no dates, so that equal runs give equal files."""
    predictions: list[Prediction] = field(default_factory=list)
    """In the order of the queries, then of the videos."""
    names: dict[str, str] = field(default_factory=dict)
    """Key -> what the query file calls the video."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> why it could not be searched."""
    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Queries about videos that are not there."""

    @property
    def exit_code(self) -> int:
        """As everywhere: 4 when some of the videos failed or are not there."""
        return 4 if self.failures or self.skipped else 0


def localize(request: LocalizeRequest, on_progress: OnProgress = lambda done, total, what: None) -> LocalizeResult:
    """Ask every query. An error of one video among many ends with that video; where all fail, the first error is raised."""
    _check_outputs(request)
    device = resolve_device(request.device)
    run = load_run(request.checkpoint, device)
    for query in request.queries:
        run.text.encoder.check(query.text)
    if not isinstance(run.head, RowHead):
        raise ConfigError(f"{request.checkpoint}: head {run.record.head} gives no score to rows: it cannot localize")
    scorer = RowScorer(
        run.head, run.text, device=device, rate_fps=run.record.rate_fps, memory_bytes=request.memory_bytes,
        precision=request.precision,
    )  # fmt: skip
    answers = _Answers(request, run, scorer, on_progress)
    videos = (
        _extracted(request, run, on_progress, answers.skipped)
        if request.videos
        else _cached(request, run, answers.skipped)
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """One video, which of the queries it is asked, and the error where it could not be had."""

    name: str
    places: tuple[int, ...]
    video: Video | None
    error: QleError | None = None
    source: Path | None = None
    """Where the film is now, where the user has said so."""


class _Answers:
    """Collects what the videos say."""

    def __init__(self, request: LocalizeRequest, run: LoadedRun, scorer: RowScorer, on_progress: OnProgress) -> None:
        self._request, self._run, self._scorer, self._on_progress = request, run, scorer, on_progress
        self._found: list[tuple[int, Prediction]] = []
        self._explained: list[tuple[int, ExplainedPrediction]] = []
        self._first_error: QleError | None = None
        self._notes: list[str] = []
        self.skipped: list[Query] = []
        self._result = LocalizeResult(provenance=provenance_of(run, self._scorer))

    def add(self, asked: _Asked) -> None:
        """Score one video for its queries, and keep what pictures need while its rows are at hand."""
        try:
            if asked.video is None:
                raise asked.error or CacheMissingError(f"{asked.name} is not in the cache")
            predictions = self._predictions(asked.video, asked.places)
        except QleError as error:
            self._first_error = self._first_error or error
            self._result.failures[asked.name] = str(error).splitlines()[0]
            return
        self._found += zip(asked.places, predictions, strict=True)
        for place in asked.places:
            if (name := self._request.queries[place].video) is not None:
                self._result.names[asked.video.key] = name
        if self._request.report is not None or self._request.heatmaps is not None:
            preprocess = self._run.record.space.hashed.get("preprocess") or {}
            shown = explain_frames(
                self._scorer, asked.video, predictions, preprocess=preprocess, num_frames=self._request.num_frames,
                source=asked.source, max_side=MAX_SIDE if self._request.heatmaps is not None else PAGE_SIDE,
                with_attribution=self._request.report is not None,
            )  # fmt: skip
            self._explained += zip(asked.places, shown, strict=True)

    def finish(self) -> LocalizeResult:
        if self._first_error is not None and not self._found:
            raise self._first_error
        result = self._result
        result.predictions = [prediction for _, prediction in sorted(self._found, key=lambda pair: pair[0])]
        explained = [one for _, one in sorted(self._explained, key=lambda pair: pair[0])]
        result.skipped = [str(query) for query in self.skipped]
        result.notes = list(dict.fromkeys([*self._notes, *(one.note for one in explained if one.note)]))
        if self.skipped:
            few = "; ".join(f"{query} about {query.video!r}" for query in self.skipped[:NAMED])
            more = ", ..." if len(self.skipped) > NAMED else ""
            result.notes.insert(0, f"skipped {len(self.skipped)} queries about videos that are not there: {few}{more}")
        if self._request.heatmaps is not None:
            result.pictures = write_heatmaps(self._request.heatmaps, explained)
        if self._request.report is not None:
            provenance = result.provenance | {"created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
            write_page(self._request.report, explained, provenance, calibration_of(self._run))
        return result

    def _predictions(self, video: Video, places: Sequence[int]) -> list[Prediction]:
        queries = [self._request.queries[place] for place in places]

        def report(done: int, total: int, key: str) -> None:
            self._on_progress(done, total, f"scoring {one_line(key)}")

        tracks = self._scorer.score(video, [query.text for query in queries], report)
        self._note_unusable(video, tracks[0])
        constants = self._run.record.localization
        return [
            self._kept(predict(video.key, query.text, track, constants, query.qid))
            for query, track in zip(queries, tracks, strict=True)
        ]

    def _note_unusable(self, video: Video, track: ScoreTrack) -> None:
        """Rows that were on screen and yet have no tokens to go by; what happens in them cannot be found."""
        was_shown = choose_rows(video, self._scorer.rate_fps).valid
        if num_unusable := int((was_shown & ~track.valid).sum()):
            self._notes.append(
                f"{num_unusable} of {len(was_shown)} rows of {video.key} are not usable (qle cache verify --deep)"
            )

    def _kept(self, prediction: Prediction) -> Prediction:
        moments = [moment for moment in prediction.moments if moment.score >= self._request.min_score]
        return replace(prediction, moments=tuple(moments[: self._request.top]))


def provenance_of(run: LoadedRun, scorer: RowScorer) -> dict[str, Any]:
    """Where the numbers come from."""
    record = run.record
    return {
        "qle": qle.__version__,
        "run": str(run.folder),
        "head": record.head,
        "text encoder": run.text.encoder.name,
        "weights": record.digests,
        "trained": record.created.strftime("%Y-%m-%d %H:%M UTC"),
        "space": f"{record.space.name}-{record.space.hash[:12]}",
        "backbone": record.space.hashed.get("backbone") or "unknown",
        "rate_fps": record.rate_fps,
        "localization": config_to_dict(record.localization),
        "device": scorer.device.type,
        "precision": scorer.precision,
    }


def _cached(request: LocalizeRequest, run: LoadedRun, skipped: list[Query]) -> Generator[_Asked, None, None]:
    """Videos of the space of the run: those that are named, by the user or by queries, else all."""
    assert request.cache is not None
    space = space_of(request.cache, run)
    places: dict[str, list[int]] = {space.video(name).key: [] for name in request.video_ids}
    is_open = not places and any(query.video is None for query in request.queries)
    if is_open:
        places = {key: [] for key in space}
    open_keys = list(places)
    for place, query in enumerate(request.queries):
        if query.video is None:
            keys = open_keys
        elif (key := _key_of(space, query, request.allow_missing)) is not None:
            keys = [key]
        else:
            skipped.append(query)
            continue
        for key in keys:
            if request.video_ids and key not in places:
                raise ConfigError(f"query {query.text!r} is about {key!r}, which is not among the --video-id: drop one")
            places.setdefault(key, []).append(place)
    _refuse_nothing(request, skipped)
    if not places:
        raise CacheMissingError(
            f"{space.path} holds no video yet; fill it with: qle extract --cache {request.cache} ..."
        )
    _check_number(request, len(places))
    for key in sorted(places):
        yield _open(space, key, tuple(places[key]))


def _key_of(space: Space, query: Query, allow_missing: bool) -> str | None:
    """The cached video that a query is about; None where it is not there and may be missing."""
    assert query.video is not None
    if query.video in space:
        return query.video
    names = [key for key in space.keys() if query.video in _names(key)]  # noqa: SIM118 - a Space is no dict
    if not names and allow_missing:
        return None
    try:
        return space.video(query.video).key
    except CacheMissingError as error:
        hint = "" if names else "\nextract it, correct the name, or pass --allow-missing to skip such queries"
        raise CacheMissingError(f"{query}: {error}{hint}") from error


def _refuse_nothing(request: LocalizeRequest, skipped: Sequence[Query]) -> None:
    if len(skipped) == len(request.queries):
        raise CacheMissingError(
            f"all {len(skipped)} queries are about videos that are not there, first {skipped[0]} about {skipped[0].video!r}\n"
            "extract the videos, or correct the names (qle cache inspect lists keys)"
        )


def _check_number(request: LocalizeRequest, num_videos: int) -> None:
    if request.is_one_video and num_videos > 1:
        raise ConfigError(
            f"subtitles (--format vtt) belong to one video, and {num_videos} would be searched\n"
            "choose one with --video-id or --video, or use --format json, jsonl or csv"
        )


def _open(space: Space, key: str, places: tuple[int, ...]) -> _Asked:
    try:
        return _Asked(key, places, space.video(key))
    except QleError as error:  # damaged: the other videos are none the worse for it
        return _Asked(key, places, None, error)


def space_of(cache: Path, run: LoadedRun) -> Space:
    """The space of the run in this cache, or an error that says how the one that is there differs."""
    opened = open_cache(cache)
    found = find_space(cache, run.record.space)
    if found is not None:
        return Space(found)
    if len(opened.spaces) == 1:
        check_space(run.record, opened.space())
    raise CacheMismatchError(
        f"{cache} has no space {run.record.space.name}-{run.record.space.hash[:12]}, which the run was trained on\n"
        f"it has {', '.join(opened.spaces) or 'none yet'}\nextract the videos as the run needs them: pass them by --video"
    )


def _extracted(
    request: LocalizeRequest, run: LoadedRun, on_progress: OnProgress, skipped: list[Query]
) -> Generator[_Asked, None, None]:
    """The videos that files and folders name, extracted where the cache does not hold them."""
    sources = discover(request.videos, request.root)
    films = [source.path for source in sources]
    for option, path, suffixes in (
        ("--out", request.out, MOMENTS_SUFFIXES), ("--report", request.report, REPORT_SUFFIXES),
    ):  # fmt: skip
        check_output(option, path, inputs=films, suffixes=suffixes)
    places = _places(request, sources, skipped)
    _refuse_nothing(request, skipped)
    wanted = [source for source in sources if places[source.key]]
    _check_number(request, len(wanted))

    def report(progress: Progress) -> None:
        what = (
            f"extracting {progress.videos_done + 1}/{progress.videos_total}"
            if progress.videos_total > 1
            else "extracting"
        )
        on_progress(progress.rows_done, max(1, progress.rows_planned), what)

    supplied = supply(
        run.record.space,
        wanted,
        cache=request.cache,
        weights=request.weights,
        device=request.device,
        on_progress=report,
    )
    with closing(supplied):
        for one in supplied:
            yield _Asked(one.source.key, tuple(places[one.source.key]), one.video, one.error, one.source.path)


def _places(request: LocalizeRequest, sources: Sequence[VideoSource], skipped: list[Query]) -> dict[str, list[int]]:
    """Numbers of the queries that each source is asked."""
    places: dict[str, list[int]] = {source.key: [] for source in sources}
    for place, query in enumerate(request.queries):
        keys = [key for key in places if query.video is None or query.video in _names(key)]
        if query.video is not None and not keys and request.allow_missing:
            skipped.append(query)
            continue
        if query.video is not None and len(keys) != 1:
            which = f"names {len(keys)} of them" if keys else f"is none of them: {', '.join(list(places)[:4])}"
            raise InputError(f"{query} is about video {query.video!r}, which {which}\ngive its whole key")
        for key in keys:
            places[key].append(place)
    return places


def _names(key: str) -> tuple[str, ...]:
    path = PurePosixPath(key)
    return key, path.name, str(path.with_suffix("")), path.stem
