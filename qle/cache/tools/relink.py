"""Films that have moved: the folders where they may be now enter, and the records say where they are.

A record knows its film by size and by the hash of its first and last MiB, whatever the file is called. So every video whose
film is no longer where the record says is looked for among the files of the given folders, and only the record is written
anew: `source.path`, and the time of the file, which a copy may have changed. No file with tokens is touched. The record of a
single video is replaced by one rename; a pack never changes, so a new one with hard links to the same files takes its place.
Killed at any moment, a record says the old place or the new one, and the same command does the rest.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from qle.cache import leftovers, packs
from qle.cache.claims import whole_space
from qle.cache.handles import folder_handle, make_folder, open_file, remove, rename
from qle.cache.layout import COMMIT_FILE, TMP
from qle.cache.leftovers import PACK
from qle.cache.records import CommitRecord, FileRecord, SourceFacts, parse_record
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder
from qle.cache.tools.removal import remove_folder
from qle.cache.tools.selection import chosen_spaces, list_folders, listed, no_progress
from qle.durable import UNNAMED, owned_name, sync_file, sync_tree, write_file
from qle.errors import CacheError, InputError
from qle.types import OnProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A video whose film was found elsewhere."""

    space: str
    key: str
    old: str
    new: str
    num_copies: int
    """Files with these bytes that were found; of several the one that is still called the same is taken."""


@dataclass(slots=True, kw_only=True)
class RelinkReport:
    """What became of each video."""

    is_dry_run: bool
    num_in_place: int = 0
    """The film is where the record says."""
    moved: list[Moved] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Videos whose film is neither where the record says nor in the given folders: key -> where it was."""


@dataclass(frozen=True, slots=True)
class _StoredVideo:
    """A record, and where it stands: in the folder of a video, or in a pack."""

    record: CommitRecord
    folder: Path


def relink(
    root: Path,
    folders: Sequence[Path],
    *,
    spaces: Sequence[str] = (),
    is_dry_run: bool = False,
    on_progress: OnProgress = no_progress,
) -> RelinkReport:
    """Find the films of some or all spaces in folders, and note where they are; progress in videos."""
    report = RelinkReport(is_dry_run=is_dry_run)
    chosen = chosen_spaces(root, spaces)
    videos_of_space = {space.path: sorted(_records(space), key=lambda it: it.record.key) for space in chosen}
    lost = {
        space: [it for it in videos if not _is_in_place(it.record.source)] for space, videos in videos_of_space.items()
    }
    films = _Films(folders, {it.record.source.fingerprint.size for videos in lost.values() for it in videos})
    total = sum(map(len, videos_of_space.values()))
    report.num_in_place = done = total - sum(map(len, lost.values()))
    for space in chosen:
        changes: dict[Path, dict[str, SourceFacts]] = defaultdict(dict)
        for video in lost[space.path]:
            source = _locate(films, space, video.record, report)
            if source is not None:
                changes[video.folder][video.record.key] = source
        if changes and not is_dry_run:
            with whole_space(space):
                leftovers.clear(space.path)
                for folder, sources in changes.items():
                    _write(space, folder, sources)
                    done += len(sources)
                    on_progress(done, total, next(iter(sources)))
    return report


class _Films:
    """The files of some folders, by what they hold; only files of a wanted size are read."""

    def __init__(self, folders: Sequence[Path], sizes: set[int]) -> None:
        self._by_size: dict[int, list[Path]] = defaultdict(list)
        self._edges: dict[Path, str] = {}
        for folder in folders:
            if not folder.exists():
                raise InputError(f"{folder} does not exist: name folders where the films may be now")
            for path in _files(folder):
                with suppress(OSError):  # a link to nothing, or gone meanwhile
                    if (size := path.stat().st_size) in sizes:
                        self._by_size[size].append(path)

    def find(self, source: SourceFacts) -> list[Path]:
        """Files with the bytes of a source, those first that bear its name."""
        name = Path(source.path).name
        same = [
            path for path in self._by_size[source.fingerprint.size] if self._edge(path) == source.fingerprint.edge_hash
        ]
        return sorted(same, key=lambda path: (path.name != name, str(path)))

    def _edge(self, path: Path) -> str:
        if path not in self._edges:
            try:
                self._edges[path] = fingerprint(path).edge_hash
            except InputError:  # nobody may read it
                self._edges[path] = ""
        return self._edges[path]


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(os.path.abspath(parent), name) for name in sorted(names))


def _records(space: SpaceFolder) -> Iterator[_StoredVideo]:
    """Every record that can be read; for those that cannot there is `verify`."""
    for single in listed(list_folders(space.path)):
        if single.record is not None:
            yield _StoredVideo(single.record, single.folder)
    for pack in packs.open_packs(space.path):
        for text in pack.members["record"].to_pylist():
            yield _StoredVideo(parse_record(CommitRecord, text.encode(), pack.path / packs.MEMBERS_FILE), pack.path)


def _is_in_place(source: SourceFacts) -> bool:
    """Whether the film is where the record says; its edges are read only where its time is another."""
    try:
        stat = os.stat(source.path)
        if stat.st_size != source.fingerprint.size:
            return False
        is_same_time = stat.st_mtime_ns == source.fingerprint.mtime_ns
        return is_same_time or fingerprint(Path(source.path)).edge_hash == source.fingerprint.edge_hash
    except (OSError, ValueError, InputError):
        return False


def _locate(films: _Films, space: SpaceFolder, record: CommitRecord, report: RelinkReport) -> SourceFacts | None:
    """The source of a video as it is now; None where it was not found."""
    paths = films.find(record.source)
    if not paths:
        report.missing[record.key] = record.source.path
        return None
    now = fingerprint(paths[0])
    source = record.source.model_copy(update={"path": str(paths[0])})
    report.moved.append(
        Moved(
            space=space.path.name,
            key=record.key,
            old=record.source.path,
            new=source.path,
            num_copies=len(paths),
        )
    )
    return SourceFacts.model_validate(source.model_dump() | {"fingerprint": now})


def _write(space: SpaceFolder, folder: Path, sources: Mapping[str, SourceFacts]) -> None:
    try:
        if folder.parent.name == packs.PACKS:
            _write_pack(space, packs.open_pack(folder), sources)
        else:
            ((key, source),) = sources.items()
            _write_record(space, folder, key, source)
    except OSError as error:
        raise CacheError(
            f"cannot write into {folder}: {error.strerror}\nnothing is lost; run the same command again"
        ) from error


def _write_record(space: SpaceFolder, folder: Path, key: str, source: SourceFacts) -> None:
    """By the handle of the folder: one that comes to this place meanwhile is another video, with its own record."""
    temp = space.path / TMP / owned_name(f"{UNNAMED}{COMMIT_FILE}.", ".tmp")
    with folder_handle(space.path, folder) as handle, folder_handle(space.path, temp.parent) as temps:
        with open(os.open(COMMIT_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle), "rb") as file:
            record = parse_record(CommitRecord, file.read(), folder / COMMIT_FILE)
        if record.key != key or record.source.fingerprint.edge_hash != source.fingerprint.edge_hash:
            return
        record = record.model_copy(update={"source": source})
        try:
            write_file(temp, record.to_json(indent=None).encode(), "full", temps)
            os.utime(
                folder.parent
            )  # the index looks again where a folder of videos has changed; before, in case of a kill
            os.rename(temp.name, COMMIT_FILE, src_dir_fd=temps, dst_dir_fd=handle)
            os.fsync(handle)
            os.utime(folder.parent)
        finally:
            remove(space.path, temp)


def _write_pack(space: SpaceFolder, pack: packs.Pack, sources: Mapping[str, SourceFacts]) -> None:
    """The same files under a new name with a new list of videos; then the old pack goes."""
    temp = space.path / TMP / owned_name(PACK)
    try:
        for file in pack.record.files:
            if file.path != packs.MEMBERS_FILE:
                make_folder(space.path, (temp / file.path).parent)
                _link(pack.path / file.path, space.path, temp / file.path)
        content = _members(pack, sources)
        with folder_handle(space.path, temp) as handle:
            write_file(temp / packs.MEMBERS_FILE, content, "full", handle)
        files = [file for file in pack.record.files if file.path != packs.MEMBERS_FILE]
        files.append(FileRecord(path=packs.MEMBERS_FILE, size=len(content), xxh3=xxhash.xxh3_128_hexdigest(content)))
        record = pack.record.model_copy(update={"files": tuple(sorted(files, key=lambda file: file.path))})
        sync_tree(temp)
        with folder_handle(space.path, temp) as handle:
            write_file(temp / packs.PACK_FILE, record.to_json().encode(), "full", handle)
        sync_file(temp, "full")
        # Named after what it says, so that the same command, run again after a kill, makes no third one.
        target = pack.path.parent / f"pack-{xxhash.xxh3_64_hexdigest(content)}"
        if not target.exists():
            rename(space.path, temp, target)
        sync_file(target.parent, "full")
    finally:
        remove(space.path, temp)
    remove_folder(space.path, pack.path)


def _link(source: Path, space: Path, target: Path) -> None:
    """Another name for a file, which never changes; a copy where the file system has no such links."""
    try:
        with folder_handle(space, target.parent) as handle:
            os.link(source, target.name, dst_dir_fd=handle, follow_symlinks=False)
    except OSError:
        reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(reading, "rb") as read, open(open_file(space, target, os.O_WRONLY | os.O_CREAT), "wb") as written:
            shutil.copyfileobj(read, written)


def _members(pack: packs.Pack, sources: Mapping[str, SourceFacts]) -> bytes:
    """The list of videos with the new sources."""
    rows: list[dict[str, Any]] = pack.members.to_pylist()
    for row in rows:
        if source := sources.get(row["key"]):
            record = parse_record(CommitRecord, row["record"].encode(), pack.path / packs.MEMBERS_FILE)
            row["record"] = record.model_copy(update={"source": source}).to_json(indent=None)
            row |= {"source_path": source.path, "source_mtime_ns": source.fingerprint.mtime_ns}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=pack.members.schema), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content
