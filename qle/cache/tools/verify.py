"""Is the cache what its records say? Sizes always, and every byte with `deep`.

Enters a cache, leaves a list of findings, each naming space, video and file. Records are read from the disk, not from the
index. A deep run over many terabytes may be killed: what it found intact is noted in runs/verify.jsonl, and the next deep
run within a day goes on from there and says what it did not read again; the note goes when a run comes to its end.
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from qle.cache import packs
from qle.cache.files import hdf5_store
from qle.cache.handles import folder_handle, remove
from qle.cache.index import load_index
from qle.cache.integrity import Damage, find_damage
from qle.cache.layout import CACHE_FILE, COMMIT_FILE, RUNS, SPACE_FILE, STORE_SUFFIXES, key_from_name, video_folder
from qle.cache.plausible import commit_contradiction
from qle.cache.reader import open_cache, space_names
from qle.cache.records import CommitRecord
from qle.cache.spaces import SpaceFolder, open_space
from qle.cache.tools.selection import Listed, chosen_spaces, list_folders, listed, no_progress
from qle.durable import append_line
from qle.errors import REFUSED, CacheCorruptError, CacheError, CacheMissingError, ConfigError
from qle.inputs import parse_json, read_record_bytes
from qle.types import OnProgress

LEDGER_FILE = "verify.jsonl"
LEDGER_HOURS = 24
SPLIT_BYTES = 256 << 20
"""A larger video is hashed by several threads, file by file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as recorded."""

    space: str
    key: str
    """Key of the video, or name of the pack; empty where the description of a space or of the cache is broken."""
    file: str
    problem: str
    videos: tuple[str, ...] = ()
    """For a pack: the videos with rows in that file."""
    pack: str = ""
    """Name of the pack that the file belongs to; empty for a video by itself."""


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """What was looked at and what was found."""

    is_deep: bool
    num_videos: int = 0
    num_files: int = 0
    size_bytes: int = 0
    num_from_before: int = 0
    """Videos that an interrupted run had found intact."""
    from_before: dict[str, datetime] = field(default_factory=dict)
    """These videos, which were not read again -> when the last part of each was read."""
    findings: list[Finding] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    """Videos that are as recorded, and recorded as partial or with damaged rows -> what is wrong with them."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """One piece of work: a video, some files of a large one, or a pack."""

    space: SpaceFolder
    folder: Path
    record: CommitRecord | packs.PackRecord
    mark: str
    """For the ledger; empty where nothing is noted."""


def verify(
    root: Path,
    *,
    spaces: Sequence[str] = (),
    keys: Sequence[str] = (),
    deep: bool = False,
    again: bool = False,
    num_threads: int | None = None,
    on_progress: OnProgress = no_progress,
) -> VerifyReport:
    """Check a cache, some of its spaces or some of its videos; progress in bytes.

    again: a deep run reads what an interrupted one had found intact, too.
    """
    if again and not deep:
        raise ConfigError("--again reads every byte again: pass it with --deep")
    report = VerifyReport(is_deep=deep)
    chosen = _readable_spaces(root, spaces, report)
    _check_keys(chosen, keys)
    if again:
        _forget(chosen)
    total = sum(map(_num_bytes, chosen))
    with ThreadPoolExecutor(num_threads or min(8, os.cpu_count() or 1)) as pool:
        waiting: deque[tuple[_Unit, Future[list[Damage]]]] = deque()
        for space in chosen:
            for unit in _units(space, set(keys), report):
                waiting.append((unit, pool.submit(_damage, unit, deep)))
                while len(waiting) > 32:
                    _collect(*waiting.popleft(), report, total, on_progress)
        while waiting:
            _collect(*waiting.popleft(), report, total, on_progress)
    if deep and not keys:
        _forget(chosen)
    return report


def _forget(spaces: Sequence[SpaceFolder]) -> None:
    """Take away the notes of runs that were interrupted."""
    for space in spaces:
        with suppress(OSError):
            remove(space.path, space.path / RUNS / LEDGER_FILE)


def _readable_spaces(root: Path, names: Sequence[str], report: VerifyReport) -> list[SpaceFolder]:
    """The chosen spaces; broken descriptions are findings, and no reason not to look at the healthy spaces."""
    try:
        open_cache(root)
    except CacheCorruptError as error:
        report.findings.append(Finding(space="", key="", file=CACHE_FILE, problem=str(error)))
    else:
        if names:
            return chosen_spaces(root, names)
    spaces: list[SpaceFolder] = []
    for name in space_names(root):
        if names and not name.startswith(tuple(names)):
            continue
        try:
            spaces.append(open_space(root / name))
        except CacheCorruptError as error:
            report.findings.append(Finding(space=name, key="", file=SPACE_FILE, problem=str(error)))
    return spaces


def _num_bytes(space: SpaceFolder) -> int:
    """For the progress; 0 where a pack cannot be read, which is a finding and not the end."""
    try:
        return int(load_index(space).column("size_bytes").sum())
    except CacheError:
        return 0


def _folders_of(space: SpaceFolder, key: str) -> list[Path]:
    """Where a video stands alone, with or without a good record."""
    return [folder for store in STORE_SUFFIXES if (folder := video_folder(space.path, key, store)).exists()]


def _check_keys(spaces: Sequence[SpaceFolder], keys: Sequence[str]) -> None:
    """That a video is not there must not read like that it is intact."""
    for key in keys:
        if not any(_folders_of(space, key) or packs.find(space.path, key) for space in spaces):
            names = ", ".join(space.path.name for space in spaces)
            raise CacheMissingError(f"no video {key!r} in {names or 'this cache'}; verify takes whole keys")


def _units(space: SpaceFolder, keys: set[str], report: VerifyReport) -> Iterator[_Unit]:
    known = _ledger(space) if report.is_deep else {}
    folders = [folder for key in sorted(keys) for folder in _folders_of(space, key)]
    for video in listed(folders if keys else list_folders(space.path)):
        record = video.record
        report.num_videos += 1
        if problem := _record_problem(space, video):
            report.findings.append(_finding(space, video, problem))
        if record is None:
            continue
        report.num_files += len(record.files)
        if record.source.faults:
            report.faults[record.key] = record.source.faults
        units = list(_split(space, video.folder, record, report.is_deep))
        todo = [unit for unit in units if unit.mark not in known]
        if not todo:
            report.num_from_before += 1
            report.from_before[record.key] = datetime.fromtimestamp(max(known[unit.mark] for unit in units), UTC)
        yield from todo
    for key in sorted(keys):
        if not _folders_of(space, key) and (packed := packs.find(space.path, key)):
            report.num_videos += 1
            report.num_files += len(packed[1].files)
            yield _Unit(space, *packed, "")
    if not keys:
        yield from _packs(space, report)


def _split(space: SpaceFolder, folder: Path, record: CommitRecord, is_deep: bool) -> Iterator[_Unit]:
    mark = f"{folder.name} {record.created.isoformat()}"
    if is_deep and record.size_bytes > SPLIT_BYTES:
        for file in record.files:
            yield _Unit(space, folder, record.model_copy(update={"files": (file,)}), f"{mark} {file.path}")
    else:
        yield _Unit(space, folder, record, mark if is_deep else "")


def _packs(space: SpaceFolder, report: VerifyReport) -> Iterator[_Unit]:
    for folder in packs.pack_folders(space.path):
        try:
            pack = packs.open_pack(folder)
        except CacheCorruptError as error:
            problem = str(error).splitlines()[0]
            report.findings.append(
                Finding(space=space.path.name, key=folder.name, file=packs.PACK_FILE, problem=problem, pack=folder.name)
            )
            continue
        report.num_videos += pack.record.num_videos
        report.num_files += len(pack.record.files)
        yield _Unit(space, folder, pack.record, "")


def _record_problem(space: SpaceFolder, video: Listed) -> str:
    record = video.record
    if record is None:
        return video.problem
    if record.space != space.record.hash:
        return f"made for space {record.space[:12]}, not for {space.record.hash[:12]}"
    if video_folder(space.path, record.key, record.store) != video.folder:
        return f"the folder is not the one of video {record.key!r}"
    if problem := commit_contradiction(record, space.record):
        return f"it contradicts itself: {problem}"
    return ""


def _finding(space: SpaceFolder, video: Listed, problem: str) -> Finding:
    key = video.record.key if video.record else key_from_name(video.folder.stem) or video.folder.name
    return Finding(space=space.path.name, key=key, file=COMMIT_FILE, problem=problem)


def _damage(unit: _Unit, deep: bool) -> list[Damage]:
    record = unit.record
    try:
        damages = find_damage(unit.folder, record, deep=deep)
    except OSError as error:  # no reason to stop looking at the other videos
        if error.errno in REFUSED:
            raise
        path = os.path.relpath(error.filename or unit.folder, unit.folder)
        return [Damage(path, "unread", "an answer of the disk", error.strerror or str(error))]
    is_asked = deep and not damages and isinstance(record, CommitRecord) and record.store == "hdf5"
    if is_asked and (problem := hdf5_store.misplaced(unit.folder, record.streams)):
        return [
            Damage(COMMIT_FILE, "content", "what the file holds", problem)
        ]  # of sound bytes the wrong ones are read
    return damages


def _collect(
    unit: _Unit, result: "Future[list[Damage]]", report: VerifyReport, total: int, on_progress: OnProgress
) -> None:
    record, name = unit.record, unit.space.path.name
    damages = result.result()
    report.size_bytes += record.size_bytes
    key = record.key if isinstance(record, CommitRecord) else unit.folder.name
    pack = unit.folder.name if unit.folder.parent.name == packs.PACKS else ""
    for damage in damages:
        videos: tuple[str, ...] = ()
        if not isinstance(record, CommitRecord):
            videos = packs.videos_in_file(packs.open_pack(unit.folder), damage.path)
        problem = f"{damage.kind}, got {damage.got}, expected {damage.expected}"
        report.findings.append(
            Finding(space=name, key=key, file=damage.path, problem=problem, videos=videos, pack=pack)
        )
    if unit.mark and not damages:
        line = json.dumps({"mark": unit.mark, "at_s": time.time()})
        ledger = unit.space.path / RUNS / LEDGER_FILE
        # A cache that may not be written to is checked from the beginning each time.
        with suppress(OSError), folder_handle(unit.space.path, ledger.parent) as handle:
            append_line(ledger, line, handle)
    on_progress(report.size_bytes, max(total, report.size_bytes), key)


def _ledger(space: SpaceFolder) -> dict[str, float]:
    """Videos that a deep run found intact that was interrupted less than a day ago, and when, in seconds of the clock."""
    known: dict[str, float] = {}
    try:
        lines = read_record_bytes(space.path / RUNS / LEDGER_FILE, follow_links=False).splitlines()
    except OSError:
        return known
    for line in lines:
        try:
            entry = parse_json(line)
            if 0 <= time.time() - entry["at_s"] < LEDGER_HOURS * 3600:
                known[entry["mark"]] = entry["at_s"]
        except (ValueError, KeyError, TypeError):  # torn by the kill
            continue
    return known
