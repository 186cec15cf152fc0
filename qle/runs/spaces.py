"""The spaces of a run in a cache: found by what their numbers mean, whatever their folders are called. No torch.

cache + what the run was trained on -> Space, or StreamSet of several; or an error that says how what is there differs
"""

from pathlib import Path

from qle.cache.layout import CACHE_FILE, SPACE_FILE
from qle.cache.reader import Space, open_cache, space_names
from qle.cache.spaces import SpaceFolder, open_space
from qle.data.streams.features import StreamSet
from qle.errors import CacheError, CacheMismatchError
from qle.runs.record import RunRecord, SpaceUse, check_space


def find_space(cache: Path, use: SpaceUse) -> SpaceFolder | None:
    """The space of a run in a cache; None where there is none, or no cache yet."""
    if not (cache / CACHE_FILE).exists():
        return None
    for name in space_names(cache):
        try:
            folder = open_space(cache / name)
        except CacheError:  # damaged, which `qle cache verify` tells; the other spaces can still be read
            continue
        if folder.record.hash == use.hash:
            return folder
    return None


def space_of(cache: Path, record: RunRecord, name: str | None = None) -> Space:
    """The space of a run that reads one, by the beginning of its name where it is given. CacheMismatchError where it is not the
    run's, or not there, with what differs."""
    opened = open_cache(cache)
    folder = find_space(cache, record.space) if name is None else None
    if folder is not None:
        return Space(folder)
    if name is not None or len(opened.spaces) == 1:
        space = opened.space(name)
        check_space(record, space)
        return space
    raise _not_there(cache, record.space)


def spaces_of(cache: Path, record: RunRecord) -> tuple[Space, ...]:
    """All spaces of a run, in its order."""
    if not record.more_spaces:
        return (space_of(cache, record),)
    open_cache(cache)  # says what is wrong with it
    spaces = []
    for use in record.spaces:
        folder = find_space(cache, use)
        if folder is None:
            raise _not_there(cache, use)
        spaces.append(Space(folder))
    return tuple(spaces)


def streams_of(record: RunRecord, spaces: tuple[Space, ...]) -> StreamSet:
    """The joined streams of a run, over its spaces wherever they lie."""
    assert record.recipe is not None, record.head
    by_hash = {space.record.hash: space for space in spaces}
    return StreamSet(record.recipe, [by_hash[part.space] for part in record.recipe.parts])


def _not_there(cache: Path, use: SpaceUse) -> CacheMismatchError:
    spaces = open_cache(cache).spaces
    if (mine := f"{use.name}-{use.hash[:12]}") in spaces:
        try:
            folder = open_space(cache / mine)
        except CacheError as error:
            raise error from None  # it is there and cannot be read: why, and how to repair it
        return CacheMismatchError(
            f"{cache / mine} has the name of the space that the run was trained on, and another hash in {SPACE_FILE}\n"
            f"got {folder.record.hash[:16]}, expected {use.hash[:16]}; restore the file from a copy"
        )
    names = ", ".join(spaces) or "none yet"
    return CacheMismatchError(
        f"{cache} has no space {use.name}-{use.hash[:12]}, which the run was trained on\nit has {names}\n"
        "extract or import the videos as the run needs them; qle localize --video extracts them where that is possible"
    )
