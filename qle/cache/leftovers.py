"""What killed commands left in a space: found here, shown by `inspect`, removed by the next command or by `prune`.

    tmp/<key>.<host>...   an attempt at a video: the next attempt at it goes on from the files that are complete
    tmp/convert-<store>   videos that were on their way into another format: the same command goes on from them
    tmp/removed-*         a deletion that did not come to its end
    tmp/new-* copy-* pack-*  .qle-*.tmp      folders and files that were about to get their names
    .qle-removed-*        a space that was being deleted
    claims/*.lease        who was working on what

Names tell which process gave them (durable.owned_name). What belongs to a process that may still live stays: on this machine
its owner is asked for; of another machine's, and of those of older versions, whose names tell nothing, nothing may have been
written for `idle_hours`, and only `prune` removes them. Links are never followed: what they point to is not ours.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qle.cache.attempts import NEW, RELEASED, num_finished, read_attempt
from qle.cache.claims import release_abandoned
from qle.cache.handles import folder_handle, make_folder
from qle.cache.handles import remove as remove_below
from qle.cache.layout import CLAIMS, COMMIT_FILE, CONVERT, RUNS, TMP, video_folder
from qle.durable import UNNAMED, is_orphaned, names_this_process, owned_name, write_file

REMOVED = "removed-"
"""How names begin of what is on its way out."""
COPY, PACK = "copy-", "pack-"
OWNER = "owner-"
"""How the name of a file in a conversion's folder begins that tells who is at work there."""
OWNED = (NEW, COPY, PACK, UNNAMED)

IDLE_HOURS = 24.0
CLAIM_HOURS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file or folder that a killed command left."""

    path: Path
    within: Path
    """The folder of the space, or of the cache, below which no link is followed to it."""
    reason: str
    is_useless: bool
    """Its owner is known to be gone and nobody could go on from it: the next command that writes here removes it."""


def leftovers(space: Path, idle_hours: float = IDLE_HOURS) -> Iterator[Leftover]:
    """Everything in a space that a killed command left, as far as that can be known."""
    for path in children(space / TMP):
        if leftover := _leftover(space, path, idle_hours):
            yield leftover
    for path in children(space / CLAIMS):
        if (hours := idle_for(path)) > CLAIM_HOURS:
            yield Leftover(
                path=path, within=space, reason=f"a claim that nobody has refreshed for {hours:.0f} h", is_useless=False
            )
    yield from beside(space, space)
    yield from beside(space / RUNS, space)


def beside(folder: Path, space: Path) -> Iterator[Leftover]:
    """What a killed process left of a file that it was about to name in a folder, or of a space that was being deleted.

    space: the folder of the space, or of the cache, that this folder is or lies in.
    """
    for path in children(folder):
        is_removed = path.name.startswith(UNNAMED + REMOVED)
        is_unnamed = path.name.startswith(UNNAMED) and path.name.endswith(".tmp")
        is_useless = is_removed or (is_unnamed and is_orphaned(path.name))
        if is_useless or (is_unnamed and idle_for(path) > CLAIM_HOURS):
            yield Leftover(path=path, within=space, reason="left by a killed process", is_useless=is_useless)


def clear(space: Path) -> None:
    """Remove what is of no use to anybody; called by every command that writes into a space."""
    release_abandoned(space)
    cache = space.parent.resolve()
    for leftover in [*leftovers(space), *beside(cache, cache)]:
        if leftover.is_useless:
            remove(leftover)


def remove(leftover: Leftover) -> None:
    """Delete a leftover that another process may be deleting too; of a link the link alone."""
    remove_below(leftover.within, leftover.path)


def own(folder: Path) -> None:
    """Write into the folder of a conversion that this process is at work there, and no longer those who are gone."""
    make_folder(folder, folder)
    for path in children(folder):
        if path.name.startswith(OWNER) and is_orphaned(path.name):
            remove_below(folder, path)
    if not any(path.name.startswith(OWNER) and names_this_process(path.name) for path in children(folder)):
        mark = folder / owned_name(OWNER)
        with folder_handle(folder, folder) as handle:
            write_file(mark, b"", "none", handle)


def _leftover(space: Path, path: Path, idle_hours: float) -> Leftover | None:
    """None where somebody may still be at work there."""
    if path.is_symlink():
        return Leftover(path=path, within=space, reason="a link, which qle never makes there", is_useless=False)
    if path.name.startswith(REMOVED):
        return Leftover(path=path, within=space, reason="a deletion that was interrupted", is_useless=True)
    if path.name.startswith(OWNED) and is_orphaned(path.name):
        return Leftover(path=path, within=space, reason="left by a killed process", is_useless=True)
    if path.name.startswith(CONVERT):
        owners = [child.name for child in children(path) if child.name.startswith(OWNER)]
        if owners and all(map(is_orphaned, owners)):
            return Leftover(
                path=path, within=space, reason="a conversion that was interrupted; it would go on", is_useless=False
            )
        is_alive = any(not is_orphaned(name) for name in owners)
    else:
        is_attempt = not path.name.startswith(OWNED)
        if (
            is_attempt and path.is_dir() and not children(path)
        ):  # it gets its name with the record inside, which goes last
            return Leftover(path=path, within=space, reason="the rest of an attempt", is_useless=True)
        if leftover := _dead_attempt(space, path):
            return leftover
        record = read_attempt(path)
        is_alive = record is not None and record.is_local and not path.name.endswith(RELEASED)
    hours = 0.0 if is_alive else idle_for(path)  # alive, however long it has been waiting for a decoder
    if hours > idle_hours:
        return Leftover(
            path=path, within=space, reason=f"nothing was written there for {hours:.0f} h", is_useless=False
        )
    return None


def _dead_attempt(space: Path, path: Path) -> Leftover | None:
    """An attempt at a video whose process is gone; of use where it has complete files of a video that is not there yet."""
    record = read_attempt(path)
    if record is None or not record.is_owner_dead():
        return None
    reason, count = f"an attempt at {record.key!r} whose process is gone", num_finished(path)
    is_there = (video_folder(space, record.key, record.store) / COMMIT_FILE).exists()
    if not is_there and any(path.glob("replaced.*")):
        return Leftover(
            path=path, within=space, reason=f"{reason}, with the version that it was to replace", is_useless=False
        )
    if count and not is_there:
        return Leftover(
            path=path,
            within=space,
            reason=f"{reason}; a resume would go on from its {count} finished files",
            is_useless=False,
        )
    return Leftover(path=path, within=space, reason=reason, is_useless=True)


def children(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where it is missing or a link."""
    if folder.is_symlink():
        return []
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a tree."""
    return sum(stat.st_size for stat in _stats(path))


def idle_for(path: Path) -> float:
    """Hours since anything in a tree was written; 0 where it has just gone."""
    now_s = time.time()
    return (now_s - max((stat.st_mtime for stat in _stats(path)), default=now_s)) / 3600


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Facts about the file or folder and everything in it; what vanishes meanwhile is left out."""
    paths = [str(path)] + [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    for member in paths:
        try:
            yield os.lstat(member)
        except OSError:
            continue
