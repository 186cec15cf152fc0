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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qle.cache import packs
from qle.cache.handles import remove, rename
from qle.cache.index import UNREAD, load_index, read_records
from qle.cache.integrity import find_damage, is_whole
from qle.cache.layout import SPACE_FILE, STORE_SUFFIXES, video_folder
from qle.cache.leftovers import IDLE_HOURS, REMOVED, Leftover, beside, leftovers, size_of
from qle.cache.spaces import SpaceFolder, read_commit
from qle.cache.states import states
from qle.cache.tools.removal import remove_folder
from qle.cache.tools.selection import chosen_spaces, no_progress
from qle.durable import UNNAMED
from qle.errors import CacheError, CacheMissingError, ConfigError
from qle.types import OnProgress, VideoSource

Kind = Literal["temp", "duplicates", "damaged", "stale", "orphaned", "space"]
KINDS: tuple[Kind, ...] = ("temp", "duplicates", "damaged", "stale", "orphaned", "space")

DEFAULT_KINDS: tuple[Kind, ...] = ("temp", "duplicates")
"""Nothing that anybody could miss."""


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
        return [item for name in spaces for item in _named_spaces(root, name)]
    items: list[PruneItem] = []
    for space in chosen_spaces(root, spaces):
        if space.path.is_symlink():  # what it points to is looked after where it stands
            continue
        if "temp" in kinds:
            items += _temp(space, idle_hours)
        if "duplicates" in kinds:
            items += _duplicates(space, deep)
        if set(kinds) & {"damaged", "stale", "orphaned"}:
            items += [item for item in _videos(space, deep) if item.kind in kinds]
    if "temp" in kinds:
        items += [_leftover_item(leftover) for leftover in beside(root.resolve(), root.resolve())]
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
        remove(root / item.space if item.space else item.path.parent, item.path)
    elif _inode(item.path) == item.inode:
        remove_folder(root / item.space, item.path)


def _temp(space: SpaceFolder, idle_hours: float) -> Iterator[PruneItem]:
    for leftover in leftovers(space.path, idle_hours):
        yield _leftover_item(leftover, space.path.name)


def _leftover_item(leftover: Leftover, space: str = "") -> PruneItem:
    return PruneItem(
        kind="temp", path=leftover.path, size_bytes=size_of(leftover.path), reason=leftover.reason, space=space
    )


def _duplicates(space: SpaceFolder, deep: bool) -> Iterator[PruneItem]:
    """deep: a copy is no reason to delete another one before its every byte was looked at."""
    index = read_records(space)
    twins = [key for key, count in _counts(index.texts("key")).items() if count > 1]
    for key in twins:
        folders = [folder for store in STORE_SUFFIXES if _is_real(folder := video_folder(space.path, key, store))]
        if folders and is_whole(folders[0], key, space.record, deep=deep):  # else the other one may be all there is
            for other in folders[1:]:
                yield _item(space, "duplicates", key, other, f"readers take {folders[0].name}")
    staying: set[tuple[str, object]] = set()
    for pack in packs.open_packs(space.path):
        alone = {key: single for key in pack.row_of_key if (single := space.folder(key)) is not None}
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


def _is_real(folder: Path) -> bool:
    return folder.exists() and not folder.is_symlink() and not folder.parent.is_symlink()


def _videos(space: SpaceFolder, deep: bool) -> Iterator[PruneItem]:
    """Single videos that are damaged, stale or orphaned, as readers see them. Packed ones stay: a pack goes only whole.

    Of a video in two formats only the one that readers take is judged: the other may be what is left when that one goes.
    """
    index = read_records(space)
    rows = [row for row, pack in enumerate(index.texts("pack")) if not pack]
    keys, paths, record_ids = index.texts("key"), index.texts("source_path"), index.texts("record_id")
    starts, ends = (index.table[name].to_pylist() for name in ("source_start_s", "source_end_s"))
    sources = [  # the part that was extracted too: asked for the whole film, every clip of one would be stale
        VideoSource(key=keys[row], path=Path(paths[row]), start_s=starts[row], end_s=ends[row]) for row in rows
    ]
    for row, state in zip(rows, states(space, sources, index), strict=True):
        if keys[row] and index.row_of_key[keys[row]] != row:
            continue
        if record_ids[row] == UNREAD:
            continue  # `verify` names it; a disk that does not answer is no reason to delete
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
    known = [damage for damage in damages if damage.kind != "unread"]
    return str(known[0]) if known else ""


def _item(space: SpaceFolder, kind: Kind, key: str, folder: Path, reason: str) -> PruneItem:
    return PruneItem(
        kind=kind,
        path=folder,
        size_bytes=size_of(folder),
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


def _named_spaces(root: Path, name: str) -> list[PruneItem]:
    """The space of a name, or what an interrupted deletion has left of it."""
    begins = f"{UNNAMED}{REMOVED}{name}"
    half = [
        _leftover_item(leftover)
        for leftover in beside(root.resolve(), root.resolve())
        if leftover.path.name.startswith(begins)
    ]
    try:
        return [*map(_whole_space, chosen_spaces(root, [name])), *half]
    except CacheMissingError:
        if half:
            return half
        raise


def _whole_space(space: SpaceFolder) -> PruneItem:
    if space.path.is_symlink():
        reason = f"named; a link, which goes, while {os.readlink(space.path)} stays as it is"
        return PruneItem(kind="space", path=space.path, size_bytes=0, reason=reason, space=space.path.name)
    return PruneItem(
        kind="space",
        path=space.path,
        size_bytes=size_of(space.path),
        reason=f"named; {len(load_index(space)):,} videos",
        space=space.path.name,
    )


def _remove_space(root: Path, path: Path) -> None:
    if path.is_symlink():  # what it points to belongs to somebody else
        remove(root, path)
        return
    aside = root / f"{UNNAMED}{REMOVED}{path.name}.{secrets.token_hex(8)}"
    try:
        rename(root, path, aside)
        remove(root, aside / SPACE_FILE)  # from here on no reader takes it for a space
    except FileNotFoundError:
        return
    remove(root, aside)


def _counts(keys: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + bool(key)
    return counts
