"""What has become of each video that is wanted in a space: the plan of a resume, from the index and stat calls alone.

    done      committed, its files have their sizes, the source is the same
    stale     committed, but the source file is another one now
    damaged   committed, but a file is missing or of another size, or the record cannot be read
    failed    not committed, and the last attempt ended with an error
    claimed   not committed, and somebody is working on it
    pending   nothing of the above

Nothing is hashed but the edges of a source whose size is the same and whose time is not. Other bytes at the same size are
for `verify --deep` to find.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qle.cache import packs
from qle.cache.claims import LEASE_S
from qle.cache.index import Index, load_index
from qle.cache.layout import CLAIMS, COMMIT_FILE, STORE_SUFFIXES, VIDEOS, key_hash, video_folder
from qle.cache.records import PASSING, ErrorRecord
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder
from qle.errors import InputError
from qle.types import VideoSource

State = Literal["done", "stale", "damaged", "failed", "claimed", "pending"]

STATES: tuple[State, ...] = ("done", "stale", "damaged", "failed", "claimed", "pending")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoState:
    """One video of the list, and why it is in that state."""

    key: str
    state: State
    reason: str = ""
    """One line; empty for pending, and for done where the video is whole: what is partial or damaged is told."""
    num_attempts: int = 0
    """That ended with an error, as far as the log knows."""
    is_passing: bool = False
    """The failure lay in the way to the file and not in it, so the next run tries again by itself."""


def states(space: SpaceFolder, sources: Iterable[VideoSource], index: Index | None = None) -> list[VideoState]:
    """The state of each source, in their order."""
    index = index or load_index(space)
    errors = _attempts(space.errors.read())
    claimed = claimed_names(space)
    with closing(_Committed(index)) as committed:
        return [committed.state(source) or _uncommitted(source, errors, claimed) for source in sources]


def count_states(videos: Sequence[VideoState]) -> dict[str, int]:
    """State -> number of videos, all states in their order."""
    counts = Counter(state.state for state in videos)
    return {name: counts[name] for name in STATES}


def claimed_names(space: SpaceFolder) -> set[str]:
    """What `Claims` names the leases after that somebody keeps refreshing."""
    oldest_s = time.time() - 2 * LEASE_S  # generous: clocks of machines differ, and a claim is only a hint
    try:
        with os.scandir(space.path / CLAIMS) as entries:
            return {Path(entry.name).stem for entry in entries if _mtime_s(entry) > oldest_s}
    except FileNotFoundError:
        return set()


def _mtime_s(entry: os.DirEntry[str]) -> float:
    """0 where the claim has just been given back, which is no reason to overlook the others."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


class _Committed:
    """The committed videos of an index, asked one by one."""

    def __init__(self, index: Index) -> None:
        self._index, self._space = index, index.space.path
        self._row_of_key = index.row_of_key
        self._problems = index.texts("problem")
        self._faults = index.texts("faults")
        self._names, self._packs = index.texts("name"), index.texts("pack")
        self._shelves = index.column("shelf").tolist()
        self._sizes, self._mtimes = (index.column(name).tolist() for name in ("source_size", "source_mtime_ns"))
        self._hashes = index.texts("source_edge_hash")
        self._parts = list(zip(*(index.texts(name) for name in ("source_start_s", "source_end_s")), strict=True))
        self._nameless = {
            name for name, key, problem in zip(self._names, index.texts("key"), self._problems, strict=True)
            if problem and not key
        }  # fmt: skip
        # Flat numbers instead of a million small objects: file i of a row is paths[codes[start + i]], sizes[start + i].
        files = index.table["file_paths"].combine_chunks()
        self._starts = files.offsets.to_pylist()
        flat = files.values.dictionary_encode()
        self._paths, self._codes = flat.dictionary.to_pylist(), flat.indices.to_pylist()
        self._file_sizes = index.table["file_sizes"].combine_chunks().values.to_pylist()
        self._bad_packs: dict[str, dict[str, str]] = {}
        self._shelf_fds: dict[int, int] = {}

    def state(self, source: VideoSource) -> VideoState | None:
        """None where the video is not committed."""
        key = source.key
        row = self._row_of_key.get(key)
        if row is None:
            return self._nameless_state(key)
        state = self._listed_state(row, source)
        if state.state == "done" or self._packs[row]:
            return state
        fresh = self._index.read_again(row)  # what is not done may be replaced: the record itself decides
        if problem := fresh.texts("problem")[0]:
            return VideoState(key=key, state="damaged", reason=problem)
        with closing(_Committed(fresh)) as committed:
            return committed._listed_state(0, source)

    def _listed_state(self, row: int, source: VideoSource) -> VideoState:
        """As the index says, and the sizes of the files. OSError where the disk does not answer, which tells nothing."""
        key = source.key
        problem = self._problems[row] or (self._pack_damage(row, key) if self._packs[row] else self._damage(row))
        if problem:
            return VideoState(key=key, state="damaged", reason=problem)
        change = self._part_change(row, source) or self._source_change(row, source.path)
        if change:
            return VideoState(key=key, state="stale", reason=change)
        return VideoState(key=key, state="done", reason=self._faults[row])

    def _nameless_state(self, key: str) -> VideoState | None:
        """A folder with a shortened name whose record is unreadable can only be known by its name."""
        for store in STORE_SUFFIXES if self._nameless else ():
            if video_folder(self._space, key, store).name in self._nameless:
                return VideoState(key=key, state="damaged", reason="its commit record cannot be read")
        return None

    def _damage(self, row: int) -> str:
        folder, shelf = self._names[row], self._shelves[row]
        try:  # the index does not look into folders that nobody renamed
            os.stat(f"{folder}/{COMMIT_FILE}", dir_fd=self._shelf(shelf), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return f"it has no {COMMIT_FILE}"
        for number in range(self._starts[row], self._starts[row + 1]):
            path = self._paths[self._codes[number]]
            try:
                size = os.stat(f"{folder}/{path}", dir_fd=self._shelf(shelf), follow_symlinks=False).st_size
            except (FileNotFoundError, NotADirectoryError):
                return f"{path} is missing"
            if size != self._file_sizes[number]:
                return f"{path} has {size} bytes, expected {self._file_sizes[number]}"
        return ""

    def _shelf(self, shelf: int) -> int:
        """Where to start from: a fifth of the time of a stat call goes into walking down a long path."""
        if shelf not in self._shelf_fds:
            self._shelf_fds[shelf] = os.open(f"{self._space}/{VIDEOS}/{shelf:02x}", os.O_RDONLY)
        return self._shelf_fds[shelf]

    def close(self) -> None:
        for fd in self._shelf_fds.values():
            os.close(fd)
        self._shelf_fds.clear()

    def _pack_damage(self, row: int, key: str) -> str:
        """A pack is looked at once; then only its damaged files and those who have rows in them matter."""
        name = self._packs[row]
        pack = packs.open_pack(self._space / packs.PACKS / name)
        if name not in self._bad_packs:
            self._bad_packs[name] = packs.wrong_sizes(pack)
        bad = self._bad_packs[name]
        if not bad:
            return ""
        return next((f"pack {name}: {bad[file.path]}" for file in pack.member(key).files if file.path in bad), "")

    def _part_change(self, row: int, source: VideoSource) -> str:
        wanted, there = (source.start_s, source.end_s), self._parts[row]
        return "" if wanted == there else f"another part is asked for: {wanted} s, it was {there} s"

    def _source_change(self, row: int, path: Path) -> str:
        try:
            stat = os.stat(path)
        except OSError:  # tokens outlive their film
            return ""
        if stat.st_size != self._sizes[row]:
            return f"the source has {stat.st_size} bytes, was {self._sizes[row]} when it was extracted"
        if stat.st_mtime_ns == self._mtimes[row]:
            return ""
        try:
            is_same = fingerprint(path).edge_hash == self._hashes[row]
        except InputError:
            return ""
        return "" if is_same else "the source has the same size, but other content than when it was extracted"


def _attempts(log: Iterable[ErrorRecord]) -> dict[str, tuple[ErrorRecord, int]]:
    """The last error of each key, and how many it had."""
    counts: Counter[str] = Counter()
    latest = {}
    for record in log:
        counts[record.key] += 1
        latest[record.key] = record
    return {key: (record, max(counts[key], record.attempt)) for key, record in latest.items()}


def _uncommitted(source: VideoSource, errors: dict[str, tuple[ErrorRecord, int]], claimed: set[str]) -> VideoState:
    key = source.key
    if claimed and key_hash(key)[:32] in claimed:
        return VideoState(key=key, state="claimed", reason="somebody is working on it")
    if key not in errors:
        return VideoState(key=key, state="pending")
    error, num_attempts = errors[key]
    if _has_changed_since(error, source.path):
        reason = "the source has changed since it failed"
        return VideoState(key=key, state="pending", reason=reason, num_attempts=num_attempts)
    reason = f"{error.kind}: {error.message.splitlines()[0] if error.message else ''}"
    is_passing = error.kind == PASSING
    return VideoState(key=key, state="failed", reason=reason, num_attempts=num_attempts, is_passing=is_passing)


def _has_changed_since(error: ErrorRecord, path: Path) -> bool:
    """Someone has copied or recorded it again, as the message advised."""
    if error.source_size is None:
        return False
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) != (error.source_size, error.source_mtime_ns)
