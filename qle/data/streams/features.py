"""Several cached streams as one feature vector a clip: the transform of a run, the same in training and in localize. No torch.

    --stream slowfast --stream clip+tef -> StreamSet -> VideoClips -> windows_of -> window_features -> what the head sees

Of each stream the rows of a video (the mean over the map of a `patch` stream) are scaled to unit length, x / (|x| + 1e-5), and
joined in the order in which the streams were named. Where `clip_s` is set, rows are averaged over clips of that length first,
so that spaces of any rates go together. Else every row is a clip: then all spaces must have their rows at the same times (the
same clip length at import), and the longer ones are cut to the shortest, as the published loaders do: by a few clips. Where
more is missing (lengths.py) the video cannot be used.

Times come from data/rows.py. Of features that were imported with a clip length the edges are multiples of it and the last
one is (number of features) * clip length: spans as fractions of a window's own extent are then what the published programs
train with (13 of 1,550 videos of QVHighlights have a feature less than their length asks for, and nothing shifts).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from qle.cache.reader import Cache, Space, Video
from qle.data.annotations import Annotation
from qle.data.lookup import match_keys
from qle.data.rows import RowChoice, choose_rows
from qle.data.streams.clip_grid import averaged, clip_edges, clip_rows, usual_row_s
from qle.data.streams.lengths import too_uneven, trimmed_note, uneven_note
from qle.data.streams.opening import VideoNames, check_rates, part_of, width, without_suffix
from qle.data.streams.recipe import FeaturePart, FeatureRecipe, StreamChoice
from qle.data.streams.windows import VideoClips, WindowClips, window_features, window_of, windows_of
from qle.errors import AnnotationError, CacheMismatchError, CacheMissingError, ConfigError

__all__ = ["ClipTimes", "StreamSet", "VideoClips", "WindowClips", "window_features", "window_of", "windows_of"]

EPSILON = np.float32(1e-5)
CHUNK_BYTES = 32 << 20
"""Bytes of patch rows that are averaged at a time."""
MAX_ROWS = 1 << 40
MOST_KNOWN = 1 << 15
"""Videos whose times are kept at hand."""
SAME_TIME = 0.5
"""Rows of two spaces are the same clip when their times differ by less than this part of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTimes:
    """When the clips of a video are; known without reading a feature."""

    edges_s: np.ndarray
    duration_s: float

    @property
    def num_clips(self) -> int:
        return len(self.edges_s) - 1


class ClipSettings(Protocol):
    """How rows of streams become clips. The settings of `data.*` for heads that answer with spans are of this form."""

    @property
    def clip_s(self) -> float | None: ...

    @property
    def window_clips(self) -> int: ...

    @property
    def long_videos(self) -> str: ...


class StreamSet:
    """Streams of one cache, joined. Made by `open` (training) and `from_recipe` (everything later)."""

    def __init__(self, recipe: FeatureRecipe, spaces: Sequence[Space]) -> None:
        """spaces: of each part."""
        self.recipe = recipe
        self._of_part = tuple(spaces)
        self._known_times: dict[str, ClipTimes] = {}
        self._uneven: dict[str, str] = {}
        self.trimmed: set[str] = set()
        """Videos met so far of which a stream is a little longer than another."""
        self.spaces: tuple[Space, ...] = tuple({space.record.hash: space for space in spaces}.values())
        """Each once, in the order of the parts."""
        check_rates(recipe, self.spaces)

    @classmethod
    def open(cls, cache: Cache, choices: Sequence[StreamChoice], config: ClipSettings) -> "StreamSet":
        """Without choices: the only space of the cache. ConfigError where they do not fit together."""
        spaces: list[Space] = []
        parts: list[FeaturePart] = []
        opened: dict[str, Space] = {}
        for choice in choices or (StreamChoice(space=None),):
            space = cache.space(choice.space)
            space = opened.setdefault(space.record.hash, space)
            part = part_of(space, choice)
            if any((part.space, part.stream) == (other.space, other.stream) for other in parts):
                raise ConfigError(f"stream {space.path.name}:{part.stream} is named twice; name each once")
            parts.append(part)
            spaces.append(space)
        recipe = FeatureRecipe(
            parts=tuple(parts),
            clip_s=config.clip_s,
            window_clips=config.window_clips,
            long_videos=config.long_videos,
        )
        return cls(recipe, spaces)

    @classmethod
    def from_recipe(cls, cache: Cache, recipe: FeatureRecipe) -> "StreamSet":
        """The same transform over this cache. CacheMismatchError where a space of the recipe is not there."""
        there = {space.record.hash: space for space in map(cache.space, cache.spaces)}
        for part in recipe.parts:
            if part.space not in there:
                raise CacheMismatchError(
                    f"{cache.path} has no space {part.space[:12]}, from which the run has its stream {part.stream!r}\n"
                    f"it has {', '.join(cache.spaces) or 'none'}; extract or import the features that the run was trained on"
                )
            dim = width(there[part.space], part.stream)
            if dim != part.dim:
                where = there[part.space].path.name
                raise CacheMismatchError(
                    f"stream {part.stream!r} of {where} has {dim} numbers a row, the run {part.dim}"
                )
        return cls(recipe, [there[part.space] for part in recipe.parts])

    @property
    def where(self) -> str:
        """The streams, for people."""
        return " + ".join(
            f"{space.path.name}:{part.stream}{'+tef' if part.has_endpoints else ''}"
            for space, part in zip(self._of_part, self.recipe.parts, strict=True)
        )

    @property
    def is_float16(self) -> bool:
        """No stream is stored in more than 16 bits: then these are enough for rows of unit length, too."""
        stored = [
            (space.streams[part.stream].dtype, part)
            for space, part in zip(self._of_part, self.recipe.parts, strict=True)
        ]
        return all(dtype == "float16" or (dtype != "float32" and part.is_normalised) for dtype, part in stored)

    def keys(self) -> tuple[str, ...]:
        """Videos that all spaces hold, by their keys in the first, sorted."""
        return tuple(sorted(self._own_keys))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: videos that not every space holds, and those met so far whose streams differ in length."""
        first, missing = self.spaces[0], len(self.spaces[0]) - len(self._own_keys)
        lacking = f"{missing:,} of {len(first):,} videos of {first.path.name} are not in every space and cannot be used"
        return (
            *([lacking] if missing else []),
            *([uneven_note(list(self._uneven.values()))] if self._uneven else []),
            *([trimmed_note(len(self.trimmed))] if self.trimmed else []),
        )

    def match(
        self, annotations: Sequence[Annotation], allow_missing: bool = False
    ) -> tuple[dict[str, list[Annotation]], list[str]]:
        """Annotations by key, and the names that no video has, as data/lookup.match_videos; windows may reach out behind the
        last clip by one clip. Videos whose streams differ too much in length are an AnnotationError that names them, or missing
        ones."""

        def length(key: str) -> tuple[float, float]:
            if self._uneven_because(key) is not None:
                return float("inf"), 0.0
            times = self.times(key)
            return times.duration_s, float(np.diff(times.edges_s).max())

        where = self.spaces[0].path
        if len(self.spaces) > 1:
            where = where.with_name(" + ".join(space.path.name for space in self.spaces))
        matched, missing = match_keys(
            self.keys(), where, annotations, length, allow_missing=allow_missing, lacks=self._lacks
        )
        uneven = {key: reason for key in matched if (reason := self._uneven_because(key)) is not None}
        if uneven and not (allow_missing and len(uneven) < len(matched)):
            raise AnnotationError(
                f"{uneven_note(list(uneven.values())).replace(' are left out, their', ' cannot be used, their')}\n"
                "extract or import the shorter ones again, or pass --allow-missing to leave such videos out"
            )
        names = dict.fromkeys(annotation.video for key in uneven for annotation in matched.pop(key))
        return matched, [*missing, *names]

    def lacking(self) -> dict[str, str]:
        """Videos that some of the spaces hold and others do not, by name, and which space lacks each."""
        lacking: dict[str, str] = {}
        shared = {(hash_, key) for own in self._own_keys.values() for hash_, key in own.items()}
        names = [VideoNames(space) for space in self.spaces]
        for space in self.spaces:
            for key in space.keys():  # noqa: SIM118 - a Space is no dict
                if (space.record.hash, key) not in shared:
                    others = zip(self.spaces, names, strict=True)
                    without = (other.path.name for other, known in others if known.find(key) is None)
                    lacking.setdefault(without_suffix(key), next(without, space.path.name))
        return lacking

    @cached_property
    def _lacking(self) -> dict[str, str]:
        return self.lacking()

    def _lacks(self, name: str) -> str | None:
        return self._lacking.get(without_suffix(name))

    def videos(self, key: str) -> tuple[Video, ...]:
        """A video in each of the spaces, in their order."""
        return tuple(space.video(self._own_key(key, space)) for space in self.spaces)

    def times(self, key: str) -> ClipTimes:
        """When the clips of a video are."""
        return self._known_times.get(key) or self._times(key, self._rows(key))

    def clips(self, key: str, first: int = 0, stop: int | None = None) -> VideoClips:
        """All clips of a video, or those from `first` to before `stop`, of which alone rows are read then."""
        rows = self._rows(key)
        times = self._known_times.get(key) or self._times(key, rows)
        stop = times.num_clips if stop is None else stop
        features = np.zeros((stop - first, sum(part.dim for part in self.recipe.parts)), dtype=np.float32)
        valid, bad, column = np.ones(stop - first, dtype=bool), [], 0
        for number, (space, part) in enumerate(zip(self._of_part, self.recipe.parts, strict=True)):
            choice = rows[space.record.hash]
            values, usable, nonfinite = self._read(key, number, choice, times.edges_s, (first, stop))
            features[:, column : column + part.dim] = _scaled(values) if part.is_normalised else values
            valid &= usable
            bad.append(nonfinite + number * MAX_ROWS)
            column += part.dim
        features[~valid] = 0
        return VideoClips(
            features=features,
            edges_s=times.edges_s[first : stop + 1],
            valid=valid,
            duration_s=times.duration_s,
            bad_rows=np.concatenate(bad),
        )

    def _read(
        self, key: str, number: int, choice: RowChoice, edges_s: np.ndarray, clips: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One part of the recipe: its clips, which of them are usable, and numbers of the valid rows that are not finite."""
        space, stream = self._of_part[number], self.recipe.parts[number].stream
        video = space.video(self._own_key(key, space))
        grid = None if self.recipe.clip_s is None else clip_rows(choice, edges_s)
        begin, end = clips if grid is None else grid.range_of(*clips)
        values = _means(video, stream, begin, end)
        is_finite, valid = np.isfinite(values).all(axis=1), choice.valid[begin:end]
        nonfinite = begin + np.flatnonzero(valid & ~is_finite)
        usable = valid & is_finite
        if grid is not None:
            values, usable = averaged(values, usable, grid.part((begin, end), clips))
        return values, usable, nonfinite

    def _rows(self, key: str) -> dict[str, RowChoice]:
        """Rows of the video in each space, by its hash."""
        return {space.record.hash: choose_rows(space.video(self._own_key(key, space)), None) for space in self.spaces}

    def _times(self, key: str, rows: dict[str, RowChoice]) -> ClipTimes:
        if len(self._known_times) >= MOST_KNOWN:
            self._known_times.clear()
        return self._known_times.setdefault(key, self._find_times(key, list(rows.values())))

    def _uneven_because(self, key: str) -> str | None:
        try:
            self.times(key)
        except CacheMismatchError:
            if key not in self._uneven:
                raise
        return self._uneven.get(key)

    def _check_lengths(self, key: str, choices: Sequence[RowChoice]) -> None:
        clip_s = self.recipe.clip_s or max(map(usual_row_s, choices))
        is_grid = self.recipe.clip_s is not None
        lengths = [choice.duration_s / clip_s if is_grid else choice.num_rows for choice in choices]
        reason = too_uneven(key, [space.path.name for space in self.spaces], lengths, clip_s)
        if reason is not None:
            self._uneven[key] = reason
            raise CacheMismatchError(f"{reason}\nextract or import the video again where it is shorter")
        if max(lengths) - min(lengths) >= (SAME_TIME if is_grid else 1):
            self.trimmed.add(key)

    def _find_times(self, key: str, choices: Sequence[RowChoice]) -> ClipTimes:
        self._check_lengths(key, choices)
        if self.recipe.clip_s is not None:
            duration_s = min(choice.duration_s for choice in choices)
            return ClipTimes(edges_s=clip_edges(duration_s, self.recipe.clip_s), duration_s=duration_s)
        shortest = min(choices, key=lambda choice: choice.num_rows)
        count, first = shortest.num_rows, choices[0]
        for space, choice in zip(self.spaces[1:], choices[1:], strict=True):
            apart_s = float(np.abs(choice.times_s[:count] - first.times_s[:count]).max())
            if apart_s >= SAME_TIME * min(usual_row_s(choice), usual_row_s(first)):
                raise CacheMismatchError(
                    f"video {key!r}: rows of {space.path.name} and of {self.spaces[0].path.name} lie up to {apart_s:.3g} s "
                    "apart\nset data.clip_s to a length in seconds, over which the rows of both are averaged"
                )
        edges_s = first.edges_s[: count + 1] if count < first.num_rows else shortest.edges_s
        return ClipTimes(edges_s=edges_s, duration_s=float(edges_s[-1]))

    def _own_key(self, key: str, space: Space) -> str:
        own = self._own_keys.get(key)
        if own is None:
            raise CacheMissingError(
                f"no video {key!r} in all of {', '.join(space.path.name for space in self.spaces)}\n"
                "qle cache inspect lists the videos of a space"
            )
        return own[space.record.hash]

    @cached_property
    def _own_keys(self) -> dict[str, dict[str, str]]:
        """Key in the first space -> key in each, by hash."""
        first, *others = self.spaces
        own_keys = {key: {first.record.hash: key} for key in first.keys()}  # noqa: SIM118 - a Space is no dict
        for space in others:
            names = VideoNames(space)
            own_keys = {
                key: own | {space.record.hash: there} for key, own in own_keys.items() if (there := names.find(key))
            }
        if not own_keys:
            raise CacheMismatchError(
                f"no video is in all of {', '.join(space.path.name for space in self.spaces)}\n"
                f"their keys differ: {first.keys()[:1]} and {[space.keys()[:1] for space in others]}"
            )
        return own_keys


def _means(video: Video, stream: str, begin: int, end: int) -> np.ndarray:
    """(rows, dim) float32 of rows of a video; maps are averaged."""
    stored = video.stored(stream)
    shape = stored.shape[1:]
    if len(shape) == 1:
        return stored.read(begin, end).astype(np.float32, copy=False)
    means = np.empty((end - begin, shape[-1]), dtype=np.float32)
    step = max(1, CHUNK_BYTES // (4 * int(np.prod(shape))))
    for start in range(begin, end, step):
        stop = min(start + step, end)
        means[start - begin : stop - begin] = stored.read(start, stop).mean(axis=(1, 2), dtype=np.float32)
    return means


def _scaled(values: np.ndarray) -> np.ndarray:
    """Rows of unit length, as the family does it. Rows that are not finite become zeros later."""
    with np.errstate(invalid="ignore", over="ignore"):
        scaled: np.ndarray = values / (np.linalg.norm(values, axis=1, keepdims=True) + EPSILON)
    return scaled
