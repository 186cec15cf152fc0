"""Annotations to the videos of a space: which committed video does each annotation speak of? No torch.

Annotation files name videos as their authors did: by key, by file name or by its stem. A name that fits no video is an
error that says which, unless the caller knows that the cache holds a part of the data only; one that fits several is
always an error, because labels on the wrong video are worse than none. So are windows behind the end of the cached video:
they count from another beginning, in frames, or belong to another cut of the film.
"""

import difflib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

from qle.cache.reader import Space
from qle.data.annotations import EDGE_SLACK_S, Annotation
from qle.data.rows import extent_s
from qle.errors import AnnotationError

NAMED = 4
"""How many missing videos a message names."""
MOST_TOLD = 3
"""How many windows outside their video a message names."""
SAME_LENGTH_S, SAME_LENGTH = 1.0, 0.02
"""A stated length that differs from the cached one by at most this many seconds, or this part, means the same film."""


def match_videos(
    space: Space, annotations: Sequence[Annotation], *, allow_missing: bool = False
) -> tuple[dict[str, list[Annotation]], list[str]]:
    """Annotations by cache key (keys sorted, annotations in their order), and the names that no video has.

    AnnotationError where there are no annotations, where a name fits several videos, where any is missing (or, with
    `allow_missing`, where all are), where windows lie outside their video.
    """

    def extent(key: str) -> tuple[float, float]:
        begin_s, end_s = extent_s(space.video(key))
        return end_s - begin_s, 0.0

    return match_keys(space.keys(), space.path, annotations, extent, allow_missing=allow_missing)


def match_keys(
    keys: Collection[str],
    where: Path,
    annotations: Sequence[Annotation],
    length_of: Callable[[str], tuple[float, float]],
    *,
    allow_missing: bool = False,
    lacks: Callable[[str], str | None] = lambda name: None,
) -> tuple[dict[str, list[Annotation]], list[str]]:
    """The same for any keys. where: the space that they are of, for messages. length_of: seconds of a video, and by how many
    seconds windows may reach out behind it, beside EDGE_SLACK_S (features are a clip short now and then). lacks: where keys
    are those of several spaces, the one that a video is not in though others hold it."""
    if not annotations:
        raise AnnotationError("there are no annotations; give a file with at least one query")
    names = _Keys(keys, where.name)
    by_key: dict[str, list[Annotation]] = {}
    missing: dict[str, None] = {}
    for annotation in annotations:
        key = names.find(annotation.video)
        if key is None:
            missing[annotation.video] = None
        else:
            by_key.setdefault(key, []).append(annotation)
    if missing and not (allow_missing and by_key):
        raise AnnotationError(_explain(keys, where, list(missing), len(missing) + len(by_key), lacks))
    _check_windows(length_of, by_key)
    return {key: by_key[key] for key in sorted(by_key)}, list(missing)


def _check_windows(length_of: Callable[[str], tuple[float, float]], by_key: dict[str, list[Annotation]]) -> None:
    outside: list[str] = []
    for key, annotations in by_key.items():
        if not any(annotation.windows for annotation in annotations):
            continue
        length_s, slack_s = length_of(key)
        for annotation in annotations:
            limit_s = max(_last_second(annotation, length_s), length_s + slack_s) + EDGE_SLACK_S
            outside += [
                f"qid {annotation.qid} of {key!r}: [{start:g}, {end:g}] of a video of {length_s:.4g} s"
                for start, end in annotation.windows
                if end > limit_s
            ]
    if outside:
        rest = f"; and {len(outside) - MOST_TOLD:,} more" if len(outside) > MOST_TOLD else ""
        raise AnnotationError(
            f"{len(outside):,} windows of the annotations lie outside their videos: {'; '.join(outside[:MOST_TOLD])}{rest}\n"
            "times are seconds and count from the first frame of the video (of the clip, where a manifest lists clips)\n"
            "correct the times, or the video that the row names"
        )


def _last_second(annotation: Annotation, length_s: float) -> float:
    """Datasets round lengths, and readers held the windows against the stated one: it counts where it is about right."""
    stated_s = annotation.duration_s
    if stated_s is None or abs(stated_s - length_s) > max(SAME_LENGTH_S, SAME_LENGTH * length_s):
        return length_s
    return max(stated_s, length_s)


class _Keys:
    """Keys of a space by the names under which they may be asked for; sorted once, since files name thousands."""

    def __init__(self, keys: Collection[str], where: str) -> None:
        self._where = where
        self._keys = set(keys)
        self._shorter: list[dict[str, list[str]]] = [{}, {}, {}]
        for key in keys:
            path = PurePosixPath(key)
            for names, name in zip(self._shorter, (path.name, str(path.with_suffix("")), path.stem), strict=True):
                names.setdefault(name, []).append(key)

    def find(self, name: str) -> str | None:
        if name in self._keys:
            return name
        for names in self._shorter:
            keys = names.get(name, [])
            if len(keys) == 1:
                return keys[0]
            if keys:
                raise AnnotationError(
                    f"video {name!r} of the annotations fits {len(keys)} videos of {self._where}: {_few(keys)}\n"
                    "name them by their whole keys in the annotations"
                )
        return None


def _explain(
    keys: Collection[str], where: Path, missing: Sequence[str], num_named: int, lacks: Callable[[str], str | None]
) -> str:
    near = difflib.get_close_matches(missing[0], keys, n=1, cutoff=0.5)
    nearest = f"; nearest to {missing[0]!r} is {near[0]!r}" if near else ""
    hint = f"the cache names videos by their path below the extracted folder{nearest}"
    for name in missing:
        if (space := lacks(name)) is not None:
            num_same = sum(lacks(other) == space for other in missing)
            hint = f"{space} lacks {num_same} of them, which another space holds, e.g. {name!r}"
            break
    return (
        f"{len(missing)} of the {num_named} annotated videos are not among the {len(keys)} of {where}: {_few(missing)}\n"
        f"{hint}\n"
        "extract them into this space, correct the names (qle cache inspect lists keys), or pass --allow-missing"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
