"""Named streams -> parts of a recipe, and the same video in several spaces. No torch.

What a user names (SPACE, SPACE:STREAM) is found here, and what does not go together is refused here.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from qle.cache.reader import Space
from qle.data.streams.recipe import FeaturePart, FeatureRecipe, StreamChoice
from qle.errors import CacheMismatchError, CacheMissingError, ConfigError

LONGEST_SUFFIX = 6
"""Letters of an ending of a file's name, its dot included."""


class VideoNames:
    """Keys of a space by the name of their video, with or without the suffix of a file: "a/vid" is "a/vid.mp4"."""

    def __init__(self, space: Space) -> None:
        self._where = space.path.name
        self._keys = set(space.keys())
        self._short: dict[str, list[str]] = {}
        for key in space.keys():  # noqa: SIM118 - a Space is no dict
            self._short.setdefault(without_suffix(key), []).append(key)

    def find(self, key: str) -> str | None:
        if key in self._keys:
            return key
        keys = self._short.get(without_suffix(key), [])
        if len(keys) > 1:
            raise CacheMismatchError(
                f"video {key!r} fits {len(keys)} videos of {self._where}: {', '.join(map(repr, keys[:4]))}\n"
                "spaces that are used together need the same keys"
            )
        return keys[0] if keys else None


def without_suffix(key: str) -> str:
    """The ".0" of "RoripwjYFp8_60.0_210.0" is no suffix: those of files have letters."""
    suffix = PurePosixPath(key).suffix
    is_suffix = len(suffix) <= LONGEST_SUFFIX and any(letter.isalpha() for letter in suffix)
    return key.removesuffix(suffix) if is_suffix else key


def part_of(space: Space, choice: StreamChoice) -> FeaturePart:
    have = [stream.name for stream in space.record.streams]
    name = choice.stream or next((name for name in ("frame", "patch") if name in have), None)
    if name is None or name not in have:
        what = f"no stream {name!r}" if name else "neither `frame` nor `patch`"
        raise CacheMissingError(
            f"{space.path} has {what}; it has {', '.join(have)}\nname one of them: --stream {space.path.name}:{have[0]}"
        )
    return FeaturePart(space=space.record.hash, stream=name, dim=width(space, name), has_endpoints=choice.has_endpoints)


def width(space: Space, name: str) -> int:
    """Numbers of a row, after maps are averaged."""
    stream = space.streams.get(name)
    if stream is None:
        have = ", ".join(stream.name for stream in space.record.streams)
        raise CacheMissingError(f"{space.path} has no stream {name!r}; it has {have}")
    if len(stream.row_shape) not in (1, 3) or stream.dtype in ("float64", "int64", "bool"):
        raise ConfigError(
            f"stream {name!r} of {space.path.name} has rows {stream.row_shape} of {stream.dtype}: expected vectors or maps "
            "of vectors"
        )
    return stream.row_shape[-1]


def check_rates(recipe: FeatureRecipe, spaces: Sequence[Space]) -> None:
    """Without `clip_s` every row is a clip, so the rows of all spaces must have been taken in the same way."""
    if recipe.clip_s is not None:
        return
    first = spaces[0]
    for space in spaces[1:]:
        rules = [compared.record.hashed.get("sampling") for compared in (first, space)]
        if rules[0] != rules[1]:
            raise ConfigError(
                f"rows of {first.path.name} ({_told(rules[0])}) and of {space.path.name} ({_told(rules[1])}) are not the same "
                "clips\nset data.clip_s to a length in seconds, over which the rows of both are averaged"
            )


def _told(rule: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in rule.items()) if isinstance(rule, dict) else "times unknown"
