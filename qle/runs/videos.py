"""The cached videos that a run can read: those of its one space, or, where it joins several, those that all of them hold.

    cache + RunRecord -> RunVideos -> keys, annotations by key, CachedVideo

Whether streams are joined is said by the recipe of the run; nobody else has to look at it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qle.cache.reader import Space, Video
from qle.data.annotations import Annotation
from qle.data.lookup import match_videos
from qle.data.streams.features import StreamSet
from qle.errors import ConfigError
from qle.runs.record import RunRecord
from qle.runs.spaces import space_of, spaces_of, streams_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedVideo:
    """A video in the cache: its key, and all spaces of the run, which hold it."""

    key: str
    spaces: tuple[Space, ...]

    @property
    def video(self) -> Video:
        """The video in the first of the spaces."""
        return self.spaces[0].video(self.key)


class RunVideos:
    """The videos of a cache as a run reads them."""

    def __init__(self, record: RunRecord, spaces: tuple[Space, ...]) -> None:
        self.record, self.spaces = record, spaces

    @classmethod
    def open(cls, cache: Path, record: RunRecord, space: str | None = None) -> "RunVideos":
        """The spaces of the run in a cache. space: a beginning of the name of the one to read, for runs that join none."""
        if record.recipe is None:
            return cls(record, (space_of(cache, record, space),))
        if space is not None:
            raise ConfigError(
                f"--space {space}: a run of head {record.head} finds the spaces that it was trained on by itself"
            )
        return cls(record, spaces_of(cache, record))

    @cached_property
    def streams(self) -> StreamSet | None:
        """The joined streams; None where the run reads the rows of one space as they are."""
        return None if self.record.recipe is None else streams_of(self.record, self.spaces)

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about these videos."""
        return () if self.streams is None else self.streams.notes

    def keys(self) -> Collection[str]:
        """Keys, in the first space, of the videos that all spaces hold."""
        return self.spaces[0].keys() if self.streams is None else self.streams.keys()

    def lacking(self) -> Mapping[str, str]:
        """The other videos, and for each a space that lacks it."""
        return {} if self.streams is None else self.streams.lacking()

    def match(
        self, annotations: Sequence[Annotation], *, allow_missing: bool = False
    ) -> tuple[dict[str, list[Annotation]], list[str]]:
        """Annotations by the key of their video, and the names that no video has (data/lookup.py)."""
        if self.streams is None:
            return match_videos(self.spaces[0], annotations, allow_missing=allow_missing)
        return self.streams.match(annotations, allow_missing=allow_missing)

    def video(self, key: str) -> CachedVideo:
        """The video of a key; it is opened when it is read."""
        return CachedVideo(key=key, spaces=self.spaces)
