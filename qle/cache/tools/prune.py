"""What may go: `plan_prune` lists it with its size, `prune` deletes what was listed. Nothing else in qle deletes results.

    temp        what killed processes left in tmp/ and beside files; claims that nobody refreshes
    duplicates  a video that is there twice (two formats, or packed too): the copy that no reader takes
    damaged     videos whose record or files are not as recorded; deep: by their hashes too, as `verify --deep` finds them
    stale       videos whose source file is there and is another one now
    orphaned    videos whose source file is not where it was: only on request, since tokens may outlive their film
    space       whole spaces by name

A temp folder of a process that may still live stays: on this machine its owner is asked for, of another machine's nothing
may have been written for IDLE_HOURS. Videos leave by a rename before they are deleted, so a reader sees them whole or not.
"""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from qle.cache import packs
from qle.cache.attempts import ATTEMPT_FILE, RELEASED, AttemptRecord, num_finished
from qle.cache.index import load_index
from qle.cache.integrity import find_damage, is_whole
from qle.cache.layout import CLAIMS, SPACE_FILE, STORE_SUFFIXES, TMP, video_folder
from qle.cache.spaces import SpaceFolder, read_commit
from qle.cache.states import states
from qle.cache.tools.removal import REMOVED, remove_folder
from qle.cache.tools.selection import OnProgress, chosen_spaces, no_progress
from qle.durable import remove_tree
from qle.errors import CacheError, ConfigError
from qle.types import VideoSource

Kind = Literal["temp", "duplicates", "damaged", "stale", "orphaned", "space"]
KINDS: tuple[Kind, ...] = ("temp", "duplicates", "damaged", "stale", "orphaned", "space")

DEFAULT_KINDS: tuple[Kind, ...] = ("temp", "duplicates")
"""Nothing that anybody could miss."""

IDLE_HOURS = 24.0
CLAIM_HOURS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneItem:
    """One thing that would be deleted, and why."""

    kind: Kind
    path: Path
    size_bytes: int
    reason: str
    space: str = ""
    key: str = ""
    inode: int = 0
    """Inode of a video's folder: a folder that came to the same place since then is another video, and stays."""


def plan_prune(
    root: Path,
    *,
    kinds: Sequence[Kind] = DEFAULT_KINDS,
    spaces: Sequence[str] = (),
    idle_hours: float = IDLE_HOURS,
    deep: bool = False,
) -> list[PruneItem]:
    """What would go. With the kind "space", `spaces` names what is deleted whole; else it only narrows the search."""
    if deep and "damaged" not in kinds:
        raise ConfigError("--deep looks for damaged videos: pass it with --damaged")
    if "space" in kinds:
        if not spaces or len(kinds) > 1:
            raise ConfigError("deleting spaces needs their names and nothing else: qle cache prune CACHE --space NAME")
        return [_whole_space(space) for space in chosen_spaces(root, spaces)]
    items: list[PruneItem] = []
    for space in chosen_spaces(root, spaces):
        if "temp" in kinds:
            items += _temp(space, idle_hours)
        if "duplicates" in kinds:
            items += _duplicates(space, deep)
        if set(kinds) & {"damaged", "stale", "orphaned"}:
            items += [item for item in _videos(space, deep) if item.kind in kinds]
    if "temp" in kinds:
        items += _beside(root)
    return items


def prune(root: Path, items: Sequence[PruneItem], on_progress: OnProgress = no_progress) -> int:
    """Delete what was planned; returns the bytes. What is gone already is no error, so a killed run is simply repeated."""
    total, done = sum(item.size_bytes for item in items), 0
    for item in items:
        try:
            _remove(root, item)
        except OSError as error:
            raise CacheError(
                f"cannot delete {item.path}: {error.strerror}; {done} of {total} bytes are gone"
            ) from error
        done += item.size_bytes
        on_progress(done, total, item.key or item.path.name)
    return done


def _remove(root: Path, item: PruneItem) -> None:
    if item.kind == "space":
        _remove_space(root, item.path)
    elif item.kind == "temp":
        item.path.unlink(missing_ok=True) if item.path.is_file() else remove_tree(item.path)
    elif _inode(item.path) == item.inode:
        remove_folder(root / item.space, item.path)


def _temp(space: SpaceFolder, idle_hours: float) -> Iterator[PruneItem]:
    name = space.path.name
    for path in _children(space.path / TMP):
        if reason := _why_abandoned(path, idle_hours):
            yield PruneItem(kind="temp", path=path, size_bytes=_size(path), reason=reason, space=name)
    for path in _children(space.path / CLAIMS):
        if _idle_hours(path) > CLAIM_HOURS:
            reason = f"a claim that nobody has refreshed for {_idle_hours(path):.0f} h"
            yield PruneItem(kind="temp", path=path, size_bytes=_size(path), reason=reason, space=name)
    yield from _beside(space.path)


def _beside(folder: Path) -> Iterator[PruneItem]:
    """What a killed process left of a file that it was about to name, or of a space that was being deleted."""
    for path in _children(folder):
        is_removed = path.name.startswith(f".qle-{REMOVED}")
        is_unnamed = path.name.startswith(".qle-") and path.name.endswith(".tmp") and _idle_hours(path) > CLAIM_HOURS
        if is_removed or is_unnamed:
            yield PruneItem(kind="temp", path=path, size_bytes=_size(path), reason="left by a killed process")


def _why_abandoned(path: Path, idle_hours: float) -> str:
    """Empty where somebody may still be at work there."""
    if path.name.startswith(REMOVED):
        return "a deletion that was interrupted"
    try:
        record = AttemptRecord.model_validate_json((path / ATTEMPT_FILE).read_bytes())
    except (OSError, ValidationError):
        record = None
    if record is not None and record.is_owner_dead():
        kept = f"; a resume would go on from its {count} finished files" if (count := num_finished(path)) else ""
        return f"an attempt at {record.key!r} whose process is gone{kept}"
    if record is not None and record.is_local and not path.name.endswith(RELEASED):
        return ""  # alive, however long it has been waiting for a decoder
    idle = _idle_hours(path)
    return f"nothing was written there for {idle:.0f} h" if idle > idle_hours else ""


def _duplicates(space: SpaceFolder, deep: bool) -> Iterator[PruneItem]:
    """deep: a copy is no reason to delete another one before its every byte was looked at."""
    index = load_index(space)
    twins = [key for key, count in _counts(index.texts("key")).items() if count > 1]
    for key in twins:
        folders = [folder for store in STORE_SUFFIXES if (folder := video_folder(space.path, key, store)).exists()]
        if folders and is_whole(folders[0], key, space.record, deep=deep):  # else the other one may be all there is
            for other in folders[1:]:
                yield _item(space, "duplicates", key, other, f"readers take {folders[0].name}")
    staying: set[tuple[str, object]] = set()
    for pack in packs.open_packs(space.path):
        alone = {key: found for key in pack.row_of_key if (found := space.folder(key)) is not None}
        own = {key: folder for key, folder in alone.items() if is_whole(folder, key, space.record, deep=deep)}
        if len(own) == len(pack.row_of_key):
            yield _item(
                space, "duplicates", "", pack.path, "all of its videos stand alone too, where readers take them"
            )
            continue
        if find_damage(pack.path, pack.record, deep=deep):
            continue
        packed = {(key, pack.member(key).created) for key in pack.row_of_key}
        if packed <= staying:
            yield _item(
                space, "duplicates", "", pack.path, "all of its videos are in other packs, where readers take them"
            )
            continue
        staying |= packed
        for key, folder in own.items():
            if read_commit(folder, key, space.record).created == pack.member(key).created:
                yield _item(space, "duplicates", key, folder, f"the same is in {pack.path.name}")


def _videos(space: SpaceFolder, deep: bool) -> Iterator[PruneItem]:
    """Single videos that are damaged, stale or orphaned, as readers see them. Packed ones stay: a pack goes only whole.

    Of a video in two formats only the one that readers take is judged: the other may be what is left when that one goes.
    """
    index = load_index(space)
    rows = [row for row, pack in enumerate(index.texts("pack")) if not pack]
    keys, paths = index.texts("key"), index.texts("source_path")
    starts, ends = (index.table[name].to_pylist() for name in ("source_start_s", "source_end_s"))
    sources = [  # the part that was extracted too: asked for the whole film, every clip of one would be stale
        VideoSource(key=keys[row], path=Path(paths[row]), start_s=starts[row], end_s=ends[row]) for row in rows
    ]
    for row, state in zip(rows, states(space, sources, index), strict=True):
        if keys[row] and index.row_of_key[keys[row]] != row:
            continue
        folder = index.folder(row)
        if state.state == "damaged":
            yield _item(space, "damaged", keys[row], folder, state.reason)
        elif deep and (reason := _content_damage(folder, keys[row], space)):
            yield _item(space, "damaged", keys[row], folder, reason)
        elif state.state == "stale":
            yield _item(space, "stale", keys[row], folder, state.reason)
        elif state.state == "done" and os.path.isabs(paths[row]) and not os.path.exists(paths[row]):
            # A relative path says nothing: it began in the folder where the extraction was started.
            yield _item(space, "orphaned", keys[row], folder, f"{paths[row]} is not there")


def _content_damage(folder: Path, key: str, space: SpaceFolder) -> str:
    """Empty where every byte is as recorded, or where somebody has just replaced the video."""
    try:
        damages = find_damage(folder, read_commit(folder, key, space.record), deep=True)
    except CacheError:
        return ""
    return str(damages[0]) if damages else ""


def _item(space: SpaceFolder, kind: Kind, key: str, folder: Path, reason: str) -> PruneItem:
    return PruneItem(
        kind=kind,
        path=folder,
        size_bytes=_size(folder),
        reason=reason,
        space=space.path.name,
        key=key,
        inode=_inode(folder),
    )


def _inode(folder: Path) -> int:
    try:
        return os.stat(folder).st_ino
    except FileNotFoundError:
        return -1


def _whole_space(space: SpaceFolder) -> PruneItem:
    return PruneItem(
        kind="space",
        path=space.path,
        size_bytes=_size(space.path),
        reason=f"named; {len(load_index(space)):,} videos",
        space=space.path.name,
    )


def _remove_space(root: Path, path: Path) -> None:
    aside = root / f".qle-{REMOVED}{secrets.token_hex(8)}"
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    (aside / SPACE_FILE).unlink(missing_ok=True)  # from here on no reader takes it for a space
    remove_tree(aside)


def _counts(keys: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + bool(key)
    return counts


def _children(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a tree."""
    return sum(stat.st_size for stat in _stats(path))


def _idle_hours(path: Path) -> float:
    """Since anything in a tree was written; 0 where it has just gone."""
    now_s = time.time()
    return (now_s - max((stat.st_mtime for stat in _stats(path)), default=now_s)) / 3600


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Facts about the file or folder and everything in it; what vanishes meanwhile is left out."""
    places = [str(path)] + [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    for place in places:
        try:
            yield os.stat(place)
        except OSError:
            continue
