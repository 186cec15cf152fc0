"""zarr <-> hdf5, another number type, a smaller grid: from stored tokens, without a pixel or a backbone.

The format is no part of what a number means, so a change of format stays in its space and each video is replaced where it
stands. Another dtype or grid is another meaning: a new space, whose description is that of the old one with the changes, and
with `derived_from`, the hash of the space that it was made from (rounded twice is not rounded once). Videos are converted
one by one, each by an ordinary commit: a killed run has converted some, and the next one goes on.
"""

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qle.cache import leftovers
from qle.cache.claims import whole_space
from qle.cache.files.quantise import SCALE
from qle.cache.handles import make_folder, remove, rename
from qle.cache.integrity import is_whole
from qle.cache.layout import CONVERT, STORE_SUFFIXES, TMP, VIDEOS, space_hash, video_folder
from qle.cache.reader import Space, Video
from qle.cache.records import CommitRecord, SpaceRecord, is_same_source
from qle.cache.spaces import SpaceFolder, create_space, read_commit
from qle.cache.tools.removal import remove_folder
from qle.cache.tools.rewrite import rewrite_video
from qle.cache.tools.selection import chosen_spaces, no_progress
from qle.durable import sync_file
from qle.errors import CacheCorruptError, ConfigError
from qle.types import OnProgress, SpaceSpec, StoreDtype, StoreKind, Stream


@dataclass(slots=True, kw_only=True)
class ConvertReport:
    """What was converted, and into which space."""

    space: str
    num_converted: int = 0
    num_already: int = 0
    size_bytes: int = 0
    """Bytes that were written."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Videos that are not as recorded and were left out: key -> what is wrong."""


def convert(
    root: Path,
    space: str | None = None,
    *,
    store: StoreKind | None = None,
    dtype: StoreDtype | None = None,
    grid: int | None = None,
    target: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> ConvertReport:
    """Convert every video of a space, here or into another cache; progress in videos. Packed videos come out single."""
    if store is None and dtype is None and grid is None:
        raise ConfigError("nothing to convert: pass --store, --dtype or --grid")
    source = _chosen_source(root, space, dtype, grid)
    into = create_space(target or root, _spec(source.record, dtype, grid))
    report = ConvertReport(space=into.path.name)
    with whole_space(into):
        leftovers.clear(into.path)
        reader = Space(source)
        for done, key in enumerate(reader.keys(), start=1):
            _convert_video(reader, key, into, store, report)
            on_progress(done, len(reader), key)
        if store is not None:
            remove(into.path, into.path / TMP / f"{CONVERT}{store}")
    return report


def _chosen_source(root: Path, name: str | None, dtype: StoreDtype | None, grid: int | None) -> SpaceFolder:
    """The space of that name; without one the only space that is not itself what this very conversion makes of another.

    So that the same command, given again after a kill or for videos that have come since, means what it meant before.
    """
    spaces = chosen_spaces(root, [name] if name else ())
    if len(spaces) > 1 and (dtype is not None or grid is not None):
        made = {_made_hash(space.record, dtype, grid) for space in spaces}
        spaces = [space for space in spaces if space.record.hash not in made] or spaces
    if len(spaces) != 1:
        names = ", ".join(space.path.name for space in spaces)
        raise ConfigError(f"{root} has several spaces; choose one with --space: {names}")
    return spaces[0]


def _made_hash(record: SpaceRecord, dtype: StoreDtype | None, grid: int | None) -> str:
    """Hash of the space that the conversion would make of this one; empty where it cannot be converted so."""
    try:
        return space_hash(derived_spec(record, dtype, grid).hashed)
    except ConfigError:
        return ""


def _spec(record: SpaceRecord, dtype: StoreDtype | None, grid: int | None) -> SpaceSpec:
    return record.spec if dtype is None and grid is None else derived_spec(record, dtype, grid)


def _convert_video(reader: Space, key: str, into: SpaceFolder, store: StoreKind | None, report: ConvertReport) -> None:
    try:
        video = reader.video(key)
        wanted = store or video.record.store
        if into.path == reader.path:
            record = _change_format(video, into, wanted)
        else:
            present = into.committed(key)
            is_done = present is not None and is_same_source(
                present.source.fingerprint, video.record.source.fingerprint
            )
            record = None if is_done else rewrite_video(video, into, store=wanted, replace=present is not None)
    except CacheCorruptError as error:
        report.damaged[key] = str(error).splitlines()[0]
        return
    report.num_already += record is None
    report.num_converted += record is not None
    report.size_bytes += record.size_bytes if record else 0


def _change_format(video: Video, space: SpaceFolder, store: StoreKind) -> CommitRecord | None:
    """In its own place: the new version is committed aside, comes in beside the old one, and only then the old one goes.

    The old one is all there is, so unlike in an extraction it may not be moved away first. None where nothing was to do.
    """
    aside = SpaceFolder(space.path / TMP / f"{CONVERT}{store}", space.record)
    target = video_folder(space.path, video.key, store)
    is_there = target.exists() and is_whole(target, video.key, space.record)
    if not is_there:
        leftovers.own(aside.path)
        make_folder(aside.path, aside.path / TMP)
        make_folder(aside.path, aside.path / VIDEOS)
        rewrite_video(video, aside, store=store)
        make_folder(space.path, target.parent)
        _bring_in(video_folder(aside.path, video.key, store), target, video.key, space)
        sync_file(target.parent, "full")
    others = [video_folder(space.path, video.key, other) for other in STORE_SUFFIXES if other != store]
    for other in others:
        if other.exists():
            remove_folder(space.path, other)
    return None if is_there else read_commit(target, video.key, space.record)


def _bring_in(made: Path, target: Path, key: str, space: SpaceFolder) -> None:
    """Give the new version its name. A damaged one that bears it goes, one that is whole stays: it may be all there is."""
    try:
        rename(space.path, made, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not is_whole(target, key, space.record):
            remove_folder(space.path, target)
            rename(space.path, made, target)


def derived_spec(record: SpaceRecord, dtype: StoreDtype | None, grid: int | None) -> SpaceSpec:
    """The description of the space that the conversion makes."""
    streams = _converted_streams(record.streams, dtype, grid)
    hashed: dict[str, Any] = dict(record.hashed)
    tokens = hashed.get("tokens")
    changes = {name: value for name, value in (("dtype", dtype), ("grid", grid)) if value is not None}
    hashed["tokens"] = {**(tokens if isinstance(tokens, dict) else {}), **changes}
    hashed["streams"] = [
        {"name": stream.name, "row_shape": list(stream.row_shape), "dtype": stream.dtype} for stream in streams
    ]
    hashed["derived_from"] = record.hash
    name = "-".join([record.name, *([f"grid{grid}"] if grid is not None else []), *([dtype] if dtype else [])])
    return SpaceSpec(name=name, hashed=hashed, streams=streams, recorded=record.recorded)


def _converted_streams(streams: tuple[Stream, ...], dtype: StoreDtype | None, grid: int | None) -> tuple[Stream, ...]:
    """int8 is for patches alone and brings their scales; what stands beside int8 patches is float16."""
    if (dtype == "int8" or grid is not None) and not any(stream.name == "patch" for stream in streams):
        raise ConfigError("--grid and --dtype int8 are for patch tokens, which this space does not hold")
    converted: list[Stream] = []
    for stream in streams:
        if stream.name == SCALE:
            continue
        shape = stream.row_shape
        if grid is not None and stream.name == "patch":
            shape = _pooled_shape(stream, grid)
        beside = "float16" if dtype == "int8" else dtype
        wanted = (dtype if stream.name == "patch" else beside) or stream.dtype
        converted.append(Stream(name=stream.name, row_shape=shape, axes=stream.axes, dtype=wanted))
        if wanted == "int8":
            converted.append(Stream(name=SCALE, row_shape=shape[:-1], axes=stream.axes[:-1], dtype="float32"))
    return tuple(converted)


def _pooled_shape(patch: Stream, grid: int) -> tuple[int, ...]:
    if len(patch.row_shape) != 3 or not 1 <= grid <= min(patch.row_shape[:2]):
        shape = "x".join(map(str, patch.row_shape))
        raise ConfigError(f"--grid {grid}: expected 1 to the side of the patch map, which is {shape} in this space")
    return (grid, grid, patch.row_shape[2])
