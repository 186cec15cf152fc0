"""What is learned from: items, each one query about one video, and where the clips of the videos lie. No torch.

    annotations + StreamSet -> Corpus: videos with the edges of their clips, items with video, source, query and concept

A video whose clips are cut off or averaged (`long_videos`) has those clips here that the head can see.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qle.data.annotations import Annotation
from qle.data.negatives import united_concepts
from qle.data.streams.clip_grid import pool_bounds
from qle.data.streams.opening import without_suffix
from qle.data.streams.recipe import FeatureRecipe
from qle.errors import AnnotationError, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Everything that is known before an epoch begins. Items and videos are numbers."""

    keys: tuple[str, ...]
    """Keys of the videos."""
    edges_s: tuple[np.ndarray, ...]
    """(clips + 1,) float64 of each video."""
    annotations: tuple[Annotation, ...]
    """One an item: labelled with moments, or rated."""
    video: np.ndarray
    """(items,) int64"""
    source: np.ndarray
    """(items,) int64: number of the recording that the item's video is cut from."""
    queries: tuple[str, ...]
    """Distinct texts."""
    query: np.ndarray
    """(items,) int64: which of them."""
    concept: np.ndarray
    """(items,) int64"""
    happening: np.ndarray
    """(known,) int64, sorted: video * num_concepts + concept of all that happens in a video, or may: nobody has told."""
    num_concepts: int

    @property
    def num_items(self) -> int:
        return len(self.annotations)

    @property
    def num_clips(self) -> np.ndarray:
        """(videos,) int64"""
        return np.array([len(edges) - 1 for edges in self.edges_s], dtype=np.int64)


def open_corpus(
    annotations: Mapping[str, Sequence[Annotation]], edges_s: Mapping[str, np.ndarray], source_pattern: str
) -> Corpus:
    """Items of videos, both by key. AnnotationError where nothing can be learned from any annotation."""
    united = united_concepts(annotation for part in annotations.values() for annotation in part)
    by_id = dict(zip((id(annotation) for part in annotations.values() for annotation in part), united, strict=True))
    concepts: dict[str, int] = {}
    queries: dict[str, int] = {}
    sources: dict[str, int] = {}
    rows: list[tuple[Annotation, int, int, int, int]] = []
    happening: set[tuple[int, int]] = set()
    keys = [key for key, part in annotations.items() if any(map(is_item, part))]
    shorten = source_of(source_pattern)
    for video, key in enumerate(keys):
        source = sources.setdefault(shorten(key), len(sources))
        for annotation in (by_id[id(annotation)] for annotation in annotations[key]):
            concept = concepts.setdefault(annotation.concept_key, len(concepts))
            if not annotation.is_absent:
                happening.add((video, concept))
            if is_item(annotation):
                query = queries.setdefault(annotation.query, len(queries))
                rows.append((annotation, video, source, query, concept))
    if not rows:
        raise AnnotationError(
            "no annotation says when its query happens, or how raters found it: nothing can be learned"
        )
    columns = np.array([row[1:] for row in rows], dtype=np.int64).T
    return Corpus(
        keys=tuple(keys),
        edges_s=tuple(edges_s[key] for key in keys),
        annotations=tuple(row[0] for row in rows),
        video=columns[0].copy(),
        source=columns[1].copy(),
        queries=tuple(queries),
        query=columns[2].copy(),
        concept=columns[3].copy(),
        happening=np.array(sorted(video * len(concepts) + concept for video, concept in happening), dtype=np.int64),
        num_concepts=len(concepts),
    )


def is_item(annotation: Annotation) -> bool:
    """Whether something can be learned from it."""
    return annotation.is_labelled or annotation.saliency is not None


def source_of(pattern: str) -> "SourceName":
    """How a video's name is shortened to that of its recording. ConfigError where the pattern is none."""
    try:
        return SourceName(re.compile(pattern))
    except re.error as error:
        raise ConfigError(f"data.source_pattern = {pattern!r} is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True)
class SourceName:
    """key -> recording: "ab/RoripwjYFp8_60.0_210.0.mp4" and "ab/RoripwjYFp8_60.0_210.0" are "ab/RoripwjYFp8"."""

    pattern: re.Pattern[str]

    def __call__(self, key: str) -> str:
        return self.pattern.sub("", without_suffix(key))


def seen_bounds(num_clips: int, recipe: FeatureRecipe) -> np.ndarray:
    """(seen + 1,) int64: clip k of those that can be seen is made of the clips bounds[k] .. bounds[k + 1] of the video."""
    if num_clips > recipe.window_clips and recipe.long_videos == "pool":
        return pool_bounds(num_clips, recipe.window_clips)
    if num_clips > recipe.window_clips and recipe.long_videos == "truncate":
        num_clips = recipe.window_clips
    return np.arange(num_clips + 1)
