"""What a cache holds: facts about its spaces from the index, and about one video from its rows. Nothing is printed here.

`inspect_cache` reads no video, so that 100,000 of them take a tenth of a second; `inspect_video` reads one in blocks, so
that memory does not grow with its length; `token_strip` draws its patch tokens as colours.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from qle.cache import packs
from qle.cache.index import Index, load_index
from qle.cache.layout import FORMAT
from qle.cache.leftovers import beside, leftovers, size_of
from qle.cache.reader import Rows, Video, open_cache
from qle.cache.spaces import SpaceFolder
from qle.cache.states import claimed_names
from qle.cache.tools.colours import TokenColours
from qle.cache.tools.selection import chosen_spaces
from qle.errors import CacheMissingError, ConfigError
from qle.types import TIME_STREAMS, Stream

BLOCK_BYTES = 32 << 20
STRIP_MAPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """One array of every video of a space; its first axis is time."""

    name: str
    shape: tuple[int, ...]
    """Shape of one row."""
    axes: tuple[str, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceFacts:
    """One space."""

    name: str
    hash: str
    created: datetime
    streams: list[StreamFacts]
    states: dict[str, int]
    """done, damaged (unreadable record; verify looks at the files), failed, claimed -> videos."""
    num_packed: int
    num_rows: int
    num_valid: int
    faults: dict[str, str]
    """Videos that are partial or have damaged rows -> what is wrong with them."""
    hours: float
    """Hours of video in the space."""
    token_bytes: int
    """Bytes of all rows."""
    disk_bytes: int
    """Bytes of the files, metadata and padding included."""
    num_leftovers: int
    """Files and folders that killed commands left; `prune` removes them."""
    leftover_bytes: int
    provenance: dict[str, Any]
    """What the hash is made of."""
    recorded: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """A whole cache."""

    path: str
    uuid: str
    format: int
    spaces: list[SpaceFacts]
    num_leftovers: int
    """Beside the spaces: of spaces that were being deleted, and files that were about to be named."""
    leftover_bytes: int

    @property
    def disk_bytes(self) -> int:
        return sum(space.disk_bytes for space in self.spaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """The numbers of one stream of one video; None where there is no finite one."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    num_not_finite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """One video of one space."""

    key: str
    space: str
    folder: str
    store: str
    is_packed: bool
    num_rows: int
    num_valid: int
    first_pts_s: float
    last_pts_s: float
    created: datetime
    attempt: int
    size_bytes: int
    num_files: int
    source: dict[str, Any]
    faults: str
    """Where the video broke off, how many rows are damaged; empty where it is whole."""
    versions: dict[str, str]
    timings_s: dict[str, float]
    streams: list[StreamStatistics]


def inspect_cache(root: Path, spaces: Sequence[str] = ()) -> CacheFacts:
    """Facts about some or all spaces."""
    record = open_cache(root).record
    facts = [_space_facts(space) for space in chosen_spaces(root, spaces)]
    left = [size_of(leftover.path) for leftover in beside(root.resolve(), root.resolve())]
    return CacheFacts(
        path=str(root),
        uuid=record.uuid,
        format=FORMAT,
        spaces=facts,
        num_leftovers=len(left),
        leftover_bytes=sum(left),
    )


def inspect_video(root: Path, key: str, spaces: Sequence[str] = ()) -> list[VideoFacts]:
    """Facts about a video in each of the chosen spaces that has it; `key` may be any part that `Space.video` takes."""
    return [_video_facts(name, video) for name, video in find_video(root, key, spaces)]


def find_video(root: Path, key: str, spaces: Sequence[str] = ()) -> list[tuple[str, Video]]:
    """A video in each of the chosen spaces that has it; an error where none has."""
    cache = open_cache(root)
    videos, missing = [], None
    for folder in chosen_spaces(root, spaces):
        try:
            videos.append((folder.path.name, cache.space(folder.path.name).video(key)))
        except CacheMissingError as error:
            missing = error
    if not videos:
        raise missing or CacheMissingError(f"{root} has no space, so no video {key!r}")
    return videos


def _space_facts(space: SpaceFolder) -> SpaceFacts:
    index = load_index(space)
    left = list(leftovers(space.path))
    num_rows = int(index.column("num_rows").sum())
    return SpaceFacts(
        name=space.path.name,
        hash=space.record.hash,
        created=space.record.created,
        streams=[_stream_facts(stream) for stream in space.streams],
        states=_states(space, index),
        num_packed=sum(map(bool, index.texts("pack"))),
        num_rows=num_rows,
        num_valid=int(index.column("num_valid").sum()),
        faults={key: faults for key, faults in zip(*map(index.texts, ("key", "faults")), strict=True) if faults},
        hours=_seconds(index) / 3600,
        token_bytes=num_rows * sum(stream.row_bytes for stream in space.streams),
        disk_bytes=_disk_bytes(space, index),
        num_leftovers=len(left),
        leftover_bytes=sum(size_of(leftover.path) for leftover in left),
        provenance=space.record.hashed,
        recorded=space.record.recorded,
    )


def _stream_facts(stream: Stream) -> StreamFacts:
    return StreamFacts(name=stream.name, shape=stream.row_shape, axes=stream.axes, dtype=stream.dtype)


def _states(space: SpaceFolder, index: Index) -> dict[str, int]:
    failed = space.errors.latest().keys()
    num_failed = len(failed - index.row_of_key.keys()) if failed else 0
    num_done = len(index) - index.num_problems
    return {"done": num_done, "damaged": index.num_problems, "failed": num_failed, "claimed": len(claimed_names(space))}


def _seconds(index: Index) -> float:
    """Length of the sources; where it was not recorded, from the first row to the last."""
    spans = index.column("last_pts_s") - index.column("first_pts_s")
    known = index.column("duration_s")
    return float(np.where(known > 0, known, spans).sum())


def _disk_bytes(space: SpaceFolder, index: Index) -> int:
    is_packed = np.array([bool(name) for name in index.texts("pack")], dtype=bool)
    single = int(index.column("size_bytes")[~is_packed].sum())
    return single + sum(pack.record.size_bytes for pack in packs.open_packs(space.path))


def _video_facts(space: str, video: Video) -> VideoFacts:
    record = video.record
    names = [name for name in video.streams if name not in {stream.name for stream in TIME_STREAMS}]
    return VideoFacts(
        key=video.key,
        space=space,
        folder=str(video.folder),
        store=record.store,
        is_packed=video.folder.parent.name == packs.PACKS,
        num_rows=record.num_rows,
        num_valid=record.num_valid,
        first_pts_s=record.first_pts_s,
        last_pts_s=record.last_pts_s,
        created=record.created,
        attempt=record.attempt,
        size_bytes=record.size_bytes,
        num_files=len(record.files),
        source=record.source.model_dump(mode="json"),
        faults=record.source.faults,
        versions=record.versions,
        timings_s=record.timings_s,
        streams=[_statistics(name, video.streams[name], video.rows_of(name)) for name in names],
    )


def _statistics(name: str, stream: Stream, rows: Rows) -> StreamStatistics:
    """One pass in blocks; mean and variance are merged block by block (Chan et al.), which loses no digits."""
    step = max(1, BLOCK_BYTES // max(1, stream.row_bytes))
    count, mean, squares, low, high, num_bad = 0, 0.0, 0.0, np.inf, -np.inf, 0
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        finite = block[np.isfinite(block)].astype(np.float64)
        num_bad += block.size - finite.size
        if not finite.size:
            continue
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        shift = float(finite.mean()) - mean
        both = count + finite.size
        squares += float(np.square(finite - finite.mean()).sum()) + shift**2 * count * finite.size / both
        mean += shift * finite.size / both
        count = both
    return StreamStatistics(
        name=name,
        shape=rows.shape,
        dtype=stream.dtype,
        minimum=low if count else None,
        maximum=high if count else None,
        mean=mean if count else None,
        std=float(np.sqrt(squares / count)) if count else None,
        num_not_finite=num_bad,
    )


def token_strip(video: Video, path: Path, num_maps: int = STRIP_MAPS) -> Path:
    """Patch maps of a video at even distances in time, as colours (colours.py), side by side in one PNG."""
    from PIL import Image, ImageDraw

    shape = video.streams["patch"].row_shape if "patch" in video.streams else ()
    if len(shape) != 3:
        raise CacheMissingError(f"video {video.key!r} has no patch maps to draw; it has {', '.join(video.streams)}")
    chosen = np.unique(np.linspace(0, video.num_rows - 1, min(num_maps, video.num_rows)).round().astype(int))
    tokens = video.patch[chosen]
    maps = TokenColours.fit(tokens).apply(tokens)
    scale = max(1, 112 // max(shape[:2]))
    height, width = shape[0] * scale, shape[1] * scale
    sheet = Image.new("RGB", (len(chosen) * (width + 4) + 4, height + 22), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (row, rgb) in enumerate(zip(chosen, maps, strict=True)):
        left = 4 + column * (width + 4)
        draw.text((left, 4), f"{video.pts[row]:.1f} s", fill="black")
        sheet.paste(Image.fromarray(rgb).resize((width, height), Image.Resampling.NEAREST), (left, 18))
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:  # no such folder, or a suffix that is no picture's
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise ConfigError(
            f"cannot write the picture {path}: {error}; name a .png file in a folder that is there"
        ) from error
    return path
