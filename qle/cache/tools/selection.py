"""Which spaces and videos a tool works on, and how it tells how far it is."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qle.cache.layout import COMMIT_FILE, STORE_SUFFIXES, VIDEOS
from qle.cache.leftovers import children
from qle.cache.reader import open_cache
from qle.cache.records import CommitRecord, read_record
from qle.cache.spaces import SpaceFolder, open_space
from qle.errors import CacheError


def no_progress(done: int, total: int, what: str) -> None:
    """Nobody is watching."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder under videos/, and its record or what is wrong with it."""

    folder: Path
    record: CommitRecord | None
    problem: str = ""


def chosen_spaces(root: Path, names: Sequence[str] = ()) -> list[SpaceFolder]:
    """The spaces that begin with the given names, each name meaning one; all of them without names."""
    cache = open_cache(root)
    if not names:
        return [open_space(root / name) for name in cache.spaces]
    return [open_space(cache.space(name).path) for name in dict.fromkeys(names)]


def list_folders(space: Path) -> list[Path]:
    """Every folder under videos/ that stands for a video, sorted; their records may be anything."""
    suffixes = tuple(STORE_SUFFIXES.values())
    folders: list[Path] = []
    for shelf in children(space / VIDEOS):
        if len(shelf.name) == 2:
            folders += children(shelf)
    return [folder for folder in folders if folder.name.endswith(suffixes) and not folder.is_symlink()]


def listed(folders: Iterable[Path]) -> Iterator[Listed]:
    """Video folders with their records as they are on the disk, past the index."""
    for folder in folders:
        try:
            yield Listed(folder, read_record(CommitRecord, folder / COMMIT_FILE))
        except FileNotFoundError:
            yield Listed(folder, None, f"no {COMMIT_FILE}")
        except (CacheError, OSError) as error:
            yield Listed(folder, None, str(error).splitlines()[0])
