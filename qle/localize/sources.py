"""Where the videos of `qle localize` come from: a cache, or files that are extracted on the way.

    names and queries of a request + spaces of a run -> Asked, Asked, ...: a found video each, and which queries it is asked

Everything that is wrong with names is said before the first video is opened or decoded. A damaged video ends with its own
error; the others are answered all the same.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qle.errors import CacheMissingError, ConfigError, InputError, QleError
from qle.extract.plan import discover
from qle.extract.progress import Progress
from qle.extract.respec import check_extracted
from qle.localize.request import LocalizeRequest
from qle.localize.uncached import Supplied, supply
from qle.outputs import MOMENTS_SUFFIXES, REPORT_SUFFIXES, check_output
from qle.runs.record import RunRecord
from qle.runs.videos import CachedVideo, RunVideos
from qle.types import OnProgress, Query, VideoSource


@dataclass(frozen=True, slots=True)
class Asked:
    """One video, which of the queries it is asked, and the error where it could not be had."""

    name: str
    query_numbers: tuple[int, ...]
    video: CachedVideo | None
    error: QleError | None = None
    source: Path | None = None
    """Where the film is now, where the user has said so."""


def cached(request: LocalizeRequest, record: RunRecord, skipped: list[Query]) -> Generator[Asked, None, None]:
    """Videos of the spaces of the run: those that are named, by the user or by queries, else all."""
    assert request.cache is not None
    videos = RunVideos.open(request.cache, record)
    names = _Names(videos)
    numbers_of_video: dict[str, list[int]] = {names.named(name): [] for name in request.video_ids}
    lacking: Mapping[str, str] = {}
    if not numbers_of_video and any(query.video is None for query in request.queries):
        numbers_of_video = {key: [] for key in names.keys}
        lacking = names.lacking
    open_keys = list(numbers_of_video)
    for number, query in enumerate(request.queries):
        if query.video is None:
            keys = open_keys
        elif (key := names.asked(query, request.allow_missing)) is not None:
            keys = [key]
        else:
            skipped.append(query)
            continue
        for key in keys:
            if request.video_ids and key not in numbers_of_video:
                raise ConfigError(f"query {query.text!r} is about {key!r}, which is not among the --video-id: drop one")
            numbers_of_video.setdefault(key, []).append(number)
    check_any_left(request, skipped)
    if not numbers_of_video:
        raise CacheMissingError(
            f"{videos.spaces[0].path} holds no video yet; fill it with: qle extract --cache {request.cache} ..."
        )
    _check_number(request, len(numbers_of_video))
    for key in sorted(numbers_of_video):
        yield _open(videos.video(key), tuple(numbers_of_video[key]))
    for key, where in lacking.items():
        yield Asked(
            key, (), None, CacheMissingError(f"not in {where}, which the run reads; extract or import it there too")
        )


def extracted(
    request: LocalizeRequest, record: RunRecord, on_progress: OnProgress, skipped: list[Query]
) -> Generator[Asked, None, None]:
    """The videos that files and folders name, extracted where the cache does not hold them, into every space of the run."""
    for use in record.spaces:
        check_extracted(use.name, use.hashed)
    weights = _weights(request, record)
    sources = discover(request.videos, request.root)
    films = [source.path for source in sources]
    for option, path, suffixes in (
        ("--out", request.out, MOMENTS_SUFFIXES), ("--report", request.report, REPORT_SUFFIXES),
    ):  # fmt: skip
        check_output(option, path, inputs=films, suffixes=suffixes)
    numbers_of_video = _query_numbers(request, sources, skipped)
    check_any_left(request, skipped)
    wanted = [source for source in sources if numbers_of_video[source.key]]
    _check_number(request, len(wanted))
    with ExitStack() as stack:
        # Side by side, so that of a video that goes through temporary caches all spaces are there at the same time.
        supplies = [
            stack.enter_context(
                closing(
                    supply(use, wanted, cache=request.cache, weights=file, device=request.device,
                           on_progress=_extracting(on_progress))
                )
            )
            for use, file in zip(record.spaces, weights, strict=True)
        ]  # fmt: skip
        for source, *supplied in zip(wanted, *supplies, strict=True):
            yield _asked(source, supplied, tuple(numbers_of_video[source.key]))


def check_any_left(request: LocalizeRequest, skipped: Sequence[Query]) -> None:
    """CacheMissingError where no query is left."""
    if len(skipped) == len(request.queries):
        raise CacheMissingError(
            f"all {len(skipped)} queries are about videos that are not there, first {skipped[0]} about {skipped[0].video!r}\n"
            "extract the videos, or correct the names (qle cache inspect lists keys)"
        )


class _Names:
    """Names of cached videos to their keys in the first space of the run."""

    def __init__(self, videos: RunVideos) -> None:
        self._first = videos.spaces[0]
        self.keys = videos.keys()
        """Keys of the videos that all spaces hold."""
        self.lacking = videos.lacking()
        """The other videos, and for each a space that lacks it."""
        self._is_partial = len(self.keys) < len(self._first)
        self._known = {name for key in self.keys for name in _short_names(key)}

    def named(self, name: str) -> str:
        """The key that the name is, or that it is a part of; CacheMissingError where there is none, or several."""
        key = self._first.video(name).key
        if self._is_partial and key not in self.keys:
            raise CacheMissingError(
                f"video {key!r} is in {self._first.path.name}, but not in all spaces that the run reads\n"
                "extract or import it into the others too (qle cache inspect lists what they hold)"
            )
        return key

    def asked(self, query: Query, allow_missing: bool) -> str | None:
        """The video that a query is about; None where it is not there and may be missing."""
        assert query.video is not None
        is_known = query.video in self._known
        if not is_known and allow_missing:
            return None
        try:
            return self.named(query.video)
        except CacheMissingError as error:
            hint = "" if is_known else "\nextract it, correct the name, or pass --allow-missing to skip such queries"
            raise CacheMissingError(f"{query}: {error}{hint}") from error


def _check_number(request: LocalizeRequest, num_videos: int) -> None:
    if request.is_one_video and num_videos > 1:
        raise ConfigError(
            f"subtitles (--format vtt) belong to one video, and {num_videos} would be searched\n"
            "choose one with --video-id or --video, or use --format json, jsonl or csv"
        )


def _open(cached: CachedVideo, query_numbers: tuple[int, ...]) -> Asked:
    try:
        cached.video  # noqa: B018 - opened here, so that a damaged one is known
    except QleError as error:
        return Asked(cached.key, query_numbers, None, error)
    return Asked(cached.key, query_numbers, cached)


def _asked(source: VideoSource, supplied: Sequence[Supplied], query_numbers: tuple[int, ...]) -> Asked:
    error = next(
        (supplied_by_space.error for supplied_by_space in supplied if supplied_by_space.error is not None), None
    )
    video = supplied[0].video
    if error is not None or video is None:
        return Asked(source.key, query_numbers, None, error, source.path)
    spaces = tuple(supplied_by_space.space for supplied_by_space in supplied if supplied_by_space.space is not None)
    return Asked(source.key, query_numbers, CachedVideo(key=video.key, spaces=spaces), None, source.path)


def _extracting(on_progress: OnProgress) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        what = (
            f"extracting {progress.videos_done + 1}/{progress.videos_total}"
            if progress.videos_total > 1
            else "extracting"
        )
        on_progress(progress.rows_done, max(1, progress.rows_planned), what)

    return report


def _weights(request: LocalizeRequest, record: RunRecord) -> list[str | None]:
    """The weights file for the backbone of each space."""
    given = request.weights
    if len(given) <= 1:
        return [given[0] if given else None] * len(record.spaces)
    if len(given) != len(record.spaces):
        names = ", ".join(use.name for use in record.spaces)
        raise ConfigError(
            f"--weights is given {len(given)} times, and the run reads {len(record.spaces)} spaces: {names}\n"
            "give one for all of them, or one for each in this order"
        )
    return list(given)


def _query_numbers(
    request: LocalizeRequest, sources: Sequence[VideoSource], skipped: list[Query]
) -> dict[str, list[int]]:
    """Numbers of the queries that each source is asked."""
    numbers_of_video: dict[str, list[int]] = {source.key: [] for source in sources}
    for number, query in enumerate(request.queries):
        keys = [key for key in numbers_of_video if query.video is None or query.video in _short_names(key)]
        if query.video is not None and not keys and request.allow_missing:
            skipped.append(query)
            continue
        if query.video is not None and len(keys) != 1:
            which = (
                f"names {len(keys)} of them" if keys else f"is none of them: {', '.join(list(numbers_of_video)[:4])}"
            )
            raise InputError(f"{query} is about video {query.video!r}, which {which}\ngive its whole key")
        for key in keys:
            numbers_of_video[key].append(number)
    return numbers_of_video


def _short_names(key: str) -> tuple[str, ...]:
    path = PurePosixPath(key)
    return key, path.name, str(path.with_suffix("")), path.stem
