"""A film of a video with its relevance maps painted on, one row after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qle.cache.reader import Video
from qle.cache.records import is_same_source
from qle.cache.sources import fingerprint
from qle.data.rows import choose_rows
from qle.errors import CacheMismatchError, ConfigError, InputError
from qle.explain.check import OpenedRun
from qle.explain.maps import robust_scale
from qle.explain.overlay import overlay_frames
from qle.extract.decode.write import write_video
from qle.extract.source_frames import stream_frames
from qle.outputs import FILM_SUFFIXES, check_output
from qle.segments.tracks import probability_of
from qle.types import OnProgress

FILM_SIDE = 720
"""Pixels of the longer side of a film."""
LEAST_FILM_FPS = 4.0
"""Rows may be seconds apart; then the film runs faster than the video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayFilm:
    """What was written."""

    path: Path
    num_frames: int
    fps: float
    speed: float
    """Seconds of video in a second of film."""
    scale: float
    """Logits of a cell at which the colour is full."""


def overlay_film(
    opened: OpenedRun, video: Video, query: str, path: Path, on_progress: OnProgress | None = None
) -> OverlayFilm:
    """Every row of the video once, its map painted on, and the probability as a bar below."""
    scorer = opened.scorer
    scorer.text.encoder.check(query)
    choice = choose_rows(video, scorer.rate_fps)
    rows = np.flatnonzero(choice.valid)
    if not len(rows):
        raise ConfigError(f"video {video.key!r} has no valid row: there is nothing to show")
    source = Path(video.record.source.path)
    if not is_same_source(fingerprint(source), video.record.source.fingerprint):
        raise CacheMismatchError(f"{source} is another file than the one that was extracted: extract it again")
    check_output("--overlay-video", path, inputs=[source], suffixes=FILM_SUFFIXES)
    maps = scorer.maps(video, (query,), rows)[0]
    scale = robust_scale(maps)
    probabilities = probability_of(scorer.score(video, (query,))[0], opened.run.record.localization)[rows]
    rate_fps = len(rows) / choice.duration_s
    fps = max(rate_fps, LEAST_FILM_FPS)
    frames = stream_frames(source, video.index[choice.index[rows]], max_side=FILM_SIDE)
    painted = overlay_frames(frames, maps, probabilities, scale=scale, region=opened.region_of(video))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, _counted(painted, len(rows), on_progress), fps)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}\nchoose another --overlay-video") from error
    return OverlayFilm(path=path, num_frames=len(rows), fps=fps, speed=fps / rate_fps, scale=scale)


def _counted(frames: Iterator[np.ndarray], total: int, on_progress: OnProgress | None) -> Iterator[np.ndarray]:
    for done, frame in enumerate(frames):
        if on_progress is not None:
            on_progress(done, total, "frames")
        yield frame
