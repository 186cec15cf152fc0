"""Several caches -> one. Spaces of the same hash unite; nothing that is in the target is ever overwritten.

A video that the target has from the same source is left as it is; one that it has from another source is a conflict, which
is reported and left alone too. Files become hard links where asked (one disk, no second copy: cache files are never written
in place), else copies that are hashed against their record on the way. Each video appears in the target by one rename, so a
killed merge has merged some videos, and the next run does the rest. Sources are only read.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qle.cache import leftovers, packs
from qle.cache.handles import folder_handle, make_folder, open_file, remove, rename
from qle.cache.integrity import check_sizes
from qle.cache.layout import COMMIT_FILE, TMP, video_folder
from qle.cache.leftovers import COPY
from qle.cache.reader import Space, Video, open_cache
from qle.cache.records import CommitRecord, FileRecord, is_same_source
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools.rewrite import rewrite_video
from qle.cache.tools.selection import chosen_spaces, no_progress
from qle.durable import hash_file, owned_name, sync_file, sync_tree, write_file
from qle.errors import CacheCorruptError, CacheError, ConfigError
from qle.inputs import read_record_bytes
from qle.types import OnProgress

Link = Literal["copy", "hard"]

COPY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A video that both have, from different sources."""

    space: str
    key: str
    ours: str
    """Source of the one in the target, which stays."""
    theirs: str
    """Source of the one that was not merged."""
    cache: str


@dataclass(slots=True, kw_only=True)
class MergeReport:
    """What came of each video."""

    num_merged: int = 0
    num_already: int = 0
    """The target had them from the same source."""
    size_bytes: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """Videos of the sources that are not as recorded and were left out: key -> what is wrong."""


def merge(
    sources: Sequence[Path],
    target: Path,
    *,
    spaces: Sequence[str] = (),
    link: Link = "copy",
    on_progress: OnProgress = no_progress,
) -> MergeReport:
    """Bring all videos of the source caches, or of some of their spaces, into the target; progress in videos."""
    report = MergeReport()
    for source in sources:
        if source.resolve() == target.resolve():
            raise ConfigError(f"{source} is both source and target of the merge; name another target")
    chosen = [(source, space) for source in sources for space in chosen_spaces(source, spaces)]
    total = sum(len(Space(space)) for _, space in chosen)
    done = 0
    for source, space in chosen:
        reader, into = Space(space), _space_of(target, space)
        leftovers.clear(into.path)
        whole = _merge_packs(space, into, link, report)
        for key in reader:
            if key not in whole:
                _merge_video(source, reader, key, into, link, report)
            done += 1
            on_progress(done, total, key)
    return report


def _space_of(target: Path, space: SpaceFolder) -> SpaceFolder:
    """The space of the target that means the same, whatever its readable name; made where there is none."""
    if (target / "qle-cache.json").exists():
        for name in open_cache(target).spaces:
            (known,) = chosen_spaces(target, [name])
            if known.record.hash == space.record.hash:
                return known
    return create_space(target, space.record.spec)


def _merge_video(source: Path, reader: Space, key: str, into: SpaceFolder, link: Link, report: MergeReport) -> None:
    try:
        video = reader.video(key)
        if (present := into.committed(key)) is not None:
            _compare(source, present, video.record, into, report)
            return
        if video.folder.parent.name == packs.PACKS:
            rewrite_video(video, into, store="zarr")
        elif not copy_video(video, into, link):
            report.num_already += 1
            return
    except CacheCorruptError as error:
        report.damaged[key] = str(error).splitlines()[0]
        return
    report.num_merged += 1
    report.size_bytes += video.record.size_bytes


def _compare(source: Path, ours: CommitRecord, theirs: CommitRecord, into: SpaceFolder, report: MergeReport) -> None:
    if is_same_source(ours.source.fingerprint, theirs.source.fingerprint):
        report.num_already += 1
        return
    report.conflicts.append(
        Conflict(
            space=into.path.name,
            key=ours.key,
            ours=_describe(ours),
            theirs=_describe(theirs),
            cache=str(source),
        )
    )


def _describe(record: CommitRecord) -> str:
    return f"{record.source.path} ({record.source.fingerprint.size} bytes, extracted {record.created:%Y-%m-%d %H:%M})"


def _merge_packs(space: SpaceFolder, into: SpaceFolder, link: Link, report: MergeReport) -> set[str]:
    """Packs of which the target has no video go over whole; returns the keys that this settles.

    Of a damaged pack those videos go over, one by one, that are as recorded.
    """
    settled: set[str] = set()
    for pack in packs.open_packs(space.path):
        target = into.path / packs.PACKS / pack.path.name
        if packs.wrong_sizes(pack) or any(space.folder(key) for key in pack.row_of_key):
            continue
        if target.exists():
            settled |= set(pack.row_of_key)
            report.num_already += len(pack.row_of_key)
        elif not any(into.committed(key) for key in pack.row_of_key):
            try:
                _copy_folder(pack.path, pack.record.files, packs.PACK_FILE, target, into, link)
            except CacheCorruptError:
                continue
            settled |= set(pack.row_of_key)
            report.num_merged += len(pack.row_of_key)
            report.size_bytes += pack.record.size_bytes
    return settled


def copy_video(video: Video, into: SpaceFolder, link: Link) -> bool:
    """A video as it is into a space of the same hash; False where another process was faster."""
    record = video.record
    check_sizes(video.folder, record)
    target = video_folder(into.path, record.key, record.store)
    return _copy_folder(video.folder, record.files, COMMIT_FILE, target, into, link)


def _copy_folder(
    folder: Path, files: Sequence[FileRecord], record_file: str, target: Path, into: SpaceFolder, link: Link
) -> bool:
    temp = into.path / TMP / owned_name(COPY)
    try:
        for file in files:
            make_folder(into.path, (temp / file.path).parent)
            _copy_file(folder / file.path, into.path, temp / file.path, file, link)
        sync_tree(temp)
        record = read_record_bytes(folder / record_file, follow_links=False)
        with folder_handle(into.path, temp) as handle:
            write_file(temp / record_file, record, "full", handle)  # the record comes last
        sync_file(temp, "full")
        make_folder(into.path, target.parent)
        rename(into.path, temp, target)
        sync_file(target.parent, "full")
    except OSError as error:
        if (target / record_file).exists():
            return False
        if target.exists():
            raise CacheCorruptError(
                f"{target} is in the way: it has no {record_file}; delete it with: qle cache prune --damaged"
            ) from error
        raise CacheError(
            f"cannot merge {folder} into {into.path}: {error.strerror}\nrun the same command again"
        ) from error
    finally:
        remove(into.path, temp)
    return True


def _copy_file(source: Path, space: Path, target: Path, file: FileRecord, link: Link) -> None:
    """A file into a temp folder of the space. Of the source the sizes have been looked at, which refuses links."""
    if link == "hard":
        try:
            with folder_handle(space, target.parent) as handle:
                os.link(source, target.name, dst_dir_fd=handle, follow_symlinks=False)
        except OSError as error:
            raise CacheError(
                f"cannot link {source} to {target}: {error.strerror}\npass --copy: links need one file system"
            ) from error
        return
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(reading, "rb") as read, open(open_file(space, target, os.O_WRONLY | os.O_CREAT), "wb") as written:
        shutil.copyfileobj(read, written, COPY_BYTES)
    if hash_file(target) != file.xxh3:
        raise CacheCorruptError(f"{source} is not as recorded (xxh3 differs); run: qle cache verify --deep")
