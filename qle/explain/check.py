"""`qle explain`: a film with the relevance painted on, and the tests of whether explanations are true.

    run + cached video + query -> maps of every row -> frames of the source with paint -> mp4
    run + cache + annotations with masks or boxes -> Faithfulness

Pictures and reports of answers are made where answers are made (localize.py); both see a video through qle/explain/evidence.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qle.cache.reader import Space, Video
from qle.cache.records import is_same_source
from qle.cache.sources import fingerprint
from qle.data.annotations import Annotation, read_annotations
from qle.data.lookup import match_videos
from qle.data.masks import read_masks
from qle.data.rows import choose_rows
from qle.errors import AnnotationError, CacheMismatchError, ConfigError, InputError
from qle.explain.evidence import region_of
from qle.explain.faithfulness import Faithfulness, faithfulness
from qle.explain.maps import Region, robust_scale
from qle.explain.overlay import overlay_frames
from qle.explain.visible import Visible, visible
from qle.extract.decode.write import write_video
from qle.extract.source_frames import stream_frames
from qle.heads import build_head
from qle.heads.rows import RowHead
from qle.outputs import FILM_SUFFIXES, check_output
from qle.runs.record import LoadedRun, load_run
from qle.runs.spaces import space_of
from qle.runtime import resolve_device
from qle.segments.tracks import probability_of
from qle.tasks.rows.scoring import RowScorer

OnProgress = Callable[[int, int, str], None]

FILM_SIDE = 720
"""Pixels of the longer side of a film."""
LEAST_FILM_FPS = 4.0
"""Rows may be seconds apart; then the film runs faster than the video."""
NUM_FRESH = 3
"""Untrained heads: one alone may resemble the trained one by chance."""
MAX_ROWS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What was written."""

    path: Path
    num_frames: int
    fps: float
    speed: float
    """Seconds of video in a second of film."""
    scale: float
    """Logits of a cell at which the colour is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRun:
    """A run beside the videos that it can look at."""

    run: LoadedRun
    scorer: RowScorer
    space: Space

    def region_of(self, video: Video) -> Region:
        """The part of the picture that the maps of a video cover."""
        return region_of(video, self.run.record.space.hashed.get("preprocess") or {})


def open_run(checkpoint: Path, cache: Path, device: str) -> OpenedRun:
    """ConfigError for a head that has nothing to explain, CacheMismatchError where the cache is not of the run's space."""
    run = load_run(checkpoint, resolve_device(device))
    if not isinstance(run.head, RowHead):
        raise ConfigError(f"{run.folder}: head {run.record.head} does not score rows: there is nothing to explain")
    scorer = RowScorer(run.head, run.text, device=resolve_device(device), rate_fps=run.record.rate_fps)
    return OpenedRun(run=run, scorer=scorer, space=space_of(cache, run.record))


def overlay_film(
    opened: OpenedRun, video: Video, query: str, path: Path, on_progress: OnProgress | None = None
) -> Film:
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
    return Film(path=path, num_frames=len(rows), fps=fps, speed=fps / rate_fps, scale=scale)


def check_faithfulness(
    opened: OpenedRun,
    annotation_file: Path,
    *,
    max_rows: int = MAX_ROWS,
    allow_missing: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Faithfulness:
    """All measures, over at most `max_rows` rows that are spread over all annotations with masks or boxes."""
    if max_rows < 1 or seed < 0:
        raise ConfigError(f"--max-rows {max_rows}, --seed {seed}: expected 1 or more rows and a seed of 0 or more")
    scorer, space = opened.scorer, opened.space
    matched, _ = match_videos(space, read_annotations(annotation_file), allow_missing=allow_missing)
    marked = [
        (key, annotation)
        for key, asked in matched.items()
        for annotation in asked
        if annotation.is_present and (annotation.masks or annotation.boxes)
    ]
    if not marked:
        raise AnnotationError(
            f"{annotation_file}: none of its annotations has masks or boxes, which faithfulness is measured against\n"
            "qle prepare synthetic makes such a set"
        )
    targets = _targets(opened, marked, annotation_file, max_rows, seed)
    return faithfulness(
        scorer,
        space,
        targets,
        fresh=fresh_heads(opened.run, scorer.device, seed),
        region_of=opened.region_of,
        seed=seed,
        on_progress=on_progress,
    )


def fresh_heads(run: LoadedRun, device: torch.device, seed: int) -> list[RowHead]:
    """Heads of the run's config that were never trained; the random numbers of others are left alone."""
    heads = []
    for number in range(NUM_FRESH):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1 + number)
            head = build_head(run.record.head, run.record.head_config, run.record.token_shapes)
        assert isinstance(head, RowHead)
        heads.append(head.to(device).requires_grad_(False).eval())
    return heads


def _targets(
    opened: OpenedRun, marked: Sequence[tuple[str, Annotation]], annotation_file: Path, max_rows: int, seed: int
) -> list[Visible]:
    """All annotations with few rows each, or, where there are more annotations than rows, some of them with one."""
    share = max(1, max_rows // len(marked))
    found: dict[int, Visible] = {}
    for place in np.random.default_rng(seed).permutation(len(marked)).tolist():
        key, annotation = marked[place]
        track = read_masks(annotation_file, annotation.masks) if annotation.masks else None
        choice = choose_rows(opened.space.video(key), opened.scorer.rate_fps)
        seen = visible(key, annotation, choice, track, most=share)
        if len(seen.rows):
            found[place] = seen
        if len(found) == max_rows:
            break
    return [found[place] for place in sorted(found)]


def _counted(frames: Iterator[np.ndarray], total: int, on_progress: OnProgress | None) -> Iterator[np.ndarray]:
    for done, frame in enumerate(frames):
        if on_progress is not None:
            on_progress(done, total, "frames")
        yield frame
