"""How the features of a clip are made from cached streams: one transform, saved with the run and used again by localize.

    --stream slowfast --stream clip+tef  ->  StreamChoice, StreamChoice  ->(open spaces)->  FeatureRecipe  ->  features.py

No torch. The order in which streams are named is the order in which they are joined; "+tef" puts the temporal endpoints of
the clip (begin and end, as fractions of the window) behind that stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qle.errors import ConfigError

ENDPOINTS = "+tef"
NUM_ENDPOINTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChoice:
    """What a user names: SPACE, SPACE:STREAM, each with or without +tef."""

    space: str | None
    """Any unique beginning of the name of a space; None: the only one."""
    stream: str | None = None
    """None: `frame` where the space has it, else the mean of `patch`."""
    has_endpoints: bool = False

    @classmethod
    def parse(cls, text: str) -> "StreamChoice":
        """ConfigError for an empty name."""
        name, has_endpoints = text.removesuffix(ENDPOINTS), text.endswith(ENDPOINTS)
        space, _, stream = name.partition(":")
        if not space or name.endswith(":"):
            raise ConfigError(f"--stream {text!r}: expected SPACE or SPACE:STREAM, with +tef behind it if wanted")
        return cls(space=space, stream=stream or None, has_endpoints=has_endpoints)


def with_endpoints(choices: Sequence[StreamChoice]) -> tuple[StreamChoice, ...]:
    """Where no name asks for temporal endpoints, the last stream has them: all published heads read them."""
    if any(choice.has_endpoints for choice in choices):
        return tuple(choices)
    return (*choices[:-1], replace(choices[-1], has_endpoints=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePart:
    """One stream of the recipe."""

    space: str
    """Hash of the space."""
    stream: str
    dim: int
    """Width of a row, after patches are averaged."""
    has_endpoints: bool
    """Temporal endpoints follow."""
    is_normalised: bool = True
    """Rows are scaled to unit length: x / (|x| + 1e-5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecipe:
    """Everything that decides what the numbers of a clip are."""

    parts: tuple[FeaturePart, ...]
    """In the order in which they are joined."""
    clip_s: float | None = None
    """Seconds of a clip, over which rows are averaged; None: every row is a clip, as imported features have them."""
    window_clips: int = 75
    """Clips that the head sees at once."""
    long_videos: str = "windows"
    """How videos with more clips than a window are read (MomentDataConfig)."""

    @property
    def dim(self) -> int:
        """Width of a clip as the head sees it."""
        return sum(part.dim + NUM_ENDPOINTS * part.has_endpoints for part in self.parts)
