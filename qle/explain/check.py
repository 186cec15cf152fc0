"""`qle explain`: a film with the relevance painted on, and the tests of whether explanations are true.

    run + cached video + query -> maps of every row -> frames of the source with paint -> mp4
    run + cache + annotations with masks or boxes -> Faithfulness

Pictures and reports of answers are made where answers are made (localize.py); both see a video through qle/explain/evidence.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from qle.cache.reader import Space, Video
from qle.config import config_to_dict
from qle.data.annotations import Annotation, read_annotations
from qle.data.lookup import match_videos
from qle.data.masks import read_masks
from qle.data.rows import choose_rows
from qle.errors import AnnotationError, ConfigError
from qle.explain.evidence import region_of
from qle.explain.faithfulness import Faithfulness, faithfulness
from qle.explain.maps import Region
from qle.explain.visible import Visible, visible
from qle.heads import build_head, task_of
from qle.heads.rows import RowHead
from qle.runs.load import LoadedRun, load_run
from qle.runs.videos import RunVideos
from qle.runtime import resolve_device
from qle.tasks.answering import AnsweringOptions
from qle.tasks.rows.scoring import RowScorer
from qle.types import OnProgress

NUM_FRESH = 3
"""Untrained heads: one alone may resemble the trained one by chance."""
MAX_ROWS = 400


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
    options = AnsweringOptions(device=resolve_device(device))
    run = load_run(checkpoint, options.device)
    answerer_class = task_of(run.record.head).answerer_class
    scorer = None if answerer_class is None else answerer_class(run, options).maps
    if scorer is None:
        raise ConfigError(f"{run.folder}: head {run.record.head} does not score rows: there is nothing to explain")
    return OpenedRun(run=run, scorer=scorer, space=RunVideos.open(cache, run.record).spaces[0])


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
        fresh=fresh_heads(opened.run, scorer, seed),
        region_of=opened.region_of,
        seed=seed,
        on_progress=on_progress,
    )


def fresh_heads(run: LoadedRun, scorer: RowScorer, seed: int) -> list[RowHead]:
    """Heads of the run's config that were never trained; the random numbers of others are left alone."""
    heads = []
    for number in range(NUM_FRESH):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1 + number)
            head = build_head(run.record.head, config_to_dict(scorer.head.config), run.record.token_shapes)
        heads.append(cast(RowHead, head).to(scorer.device).requires_grad_(False).eval())
    return heads


def _targets(
    opened: OpenedRun, marked: Sequence[tuple[str, Annotation]], annotation_file: Path, max_rows: int, seed: int
) -> list[Visible]:
    """All annotations with few rows each, or, where there are more annotations than rows, some of them with one."""
    share = max(1, max_rows // len(marked))
    seen_of: dict[int, Visible] = {}
    for number in np.random.default_rng(seed).permutation(len(marked)).tolist():
        key, annotation = marked[number]
        track = read_masks(annotation_file, annotation.masks) if annotation.masks else None
        choice = choose_rows(opened.space.video(key), opened.scorer.rate_fps)
        seen = visible(key, annotation, choice, track, most=share)
        if len(seen.rows):
            seen_of[number] = seen
        if len(seen_of) == max_rows:
            break
    return [seen_of[number] for number in sorted(seen_of)]
