"""Feature files of others -> a space, and a stream of a space -> feature files.

Rows of a foreign file have no times of their own, and every head needs them. So an import says which rule holds, and the
space records it:

    clip_length_s c   row i describes the clip [i c, (i + 1) c): its time is the middle, (i + 0.5) c; the record of the
                      video says that it runs from 0 to (number of rows) c
    fps f             row i describes the frame shown at i / f
    neither           the file has an array `pts` (files that qle exported do)

A file that has an array `pts` is refused where it says otherwise than --fps. A clip length says what rows describe, which no
`pts` tells (some stand at the beginning of a clip), so that one goes before.

(rows, dim) becomes the stream `frame`, (rows, grid rows, grid cols, dim) the stream `patch`. Both ways video by video, each
appearing whole, so a killed run is simply repeated.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from qle.cache import leftovers
from qle.cache.files import hdf5_store
from qle.cache.layout import SPACE_FILE, clean_key, safe_name, space_folder_name
from qle.cache.reader import Space, Video, open_cache
from qle.cache.records import SourceFacts, is_same_source
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools.feature_files import (
    FEATURES,
    FeatureEntry,
    Form,
    Header,
    LoadTensors,
    SaveTensor,
    discover_features,
    peek_features,
    read_features,
    safe_path,
    write_features,
)
from qle.cache.tools.selection import no_progress
from qle.cache.writer import VideoWriter
from qle.durable import remove_unnamed, replace_file
from qle.errors import (
    CacheError,
    CacheMismatchError,
    CacheMissingError,
    CheckpointError,
    ConfigError,
    InputError,
    QleError,
)
from qle.types import OnProgress, RowPlan, SpaceSpec, StoreDtype, StoreKind, Stream

NOTES_FILE = ".qle-export.json"
"""In a folder of exported files: which space and stream they are from."""

MOST_PEEKED, MOST_READ = 64, 8
"""Files that are asked for their shape before anything is made: by their headers, and whole where they have none."""

SAME_TIME_S = 1e-3
"""Times in files are often float32, which keeps a millisecond of a video of hours."""

AXES = {2: ("dim",), 4: ("rows", "cols", "dim")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the files mean."""

    name: str
    """Readable name of the space, and part of its meaning: features of another encoder need another name."""
    fps: float | None = None
    clip_length_s: float | None = None
    array: str = FEATURES
    """Which array, where a file holds several."""
    dtype: StoreDtype | None = None
    """float16 or float32; default as the first file has it."""
    store: StoreKind = "zarr"

    def __post_init__(self) -> None:
        if self.fps is not None and self.clip_length_s is not None:
            raise ConfigError("--fps and --clip-length are two rules for the times of rows: pass one of them")
        for flag, value in (("fps", self.fps), ("clip-length", self.clip_length_s)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"--{flag} {value}: expected a number above 0")
        if self.dtype not in (None, "float16", "float32"):
            raise ConfigError(f"--dtype {self.dtype}: features are stored as float16 or float32")

    def times(self, num_rows: int, from_file: np.ndarray | None) -> np.ndarray:
        """When each row is, by the rule that was chosen."""
        rows = np.arange(num_rows, dtype=np.float64)
        if self.clip_length_s is not None:
            return (rows + 0.5) * self.clip_length_s
        if from_file is None:
            if self.fps is None:
                raise InputError("the file has no times for its rows (array `pts`); pass --fps or --clip-length")
            return rows / self.fps
        own = _checked_times(num_rows, from_file)
        if self.fps is None:
            return own
        is_near = np.isclose(own, rows / self.fps, rtol=0, atol=SAME_TIME_S)
        if not is_near.all():
            row = int(np.argmin(is_near))
            raise InputError(
                f"the file has times of its own (array `pts`): row {row} is at {own[row]:g} s, with --fps {self.fps:g} it would "
                f"be at {row / self.fps:g} s; leave --fps out to import the times of the files"
            )
        return rows / self.fps

    def describe_times(self) -> dict[str, Any]:
        """For the description of the space."""
        if self.clip_length_s is not None:
            return {"rule": "(row + 0.5) * clip_length_s", "clip_length_s": self.clip_length_s}
        return {"rule": "row / fps", "fps": self.fps} if self.fps is not None else {"rule": "pts of the file"}


def _checked_times(num_rows: int, from_file: np.ndarray) -> np.ndarray:
    """The times that a file has for its rows, in seconds."""
    if from_file.shape != (num_rows,) or from_file.dtype.kind not in "iuf":
        raise InputError(f"array `pts` is {from_file.dtype} {from_file.shape}, expected {num_rows} numbers, one a row")
    times = from_file.astype(np.float64)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise InputError("array `pts` does not ascend: rows must stand in the order of their times, in seconds")
    return times


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What came of each file."""

    space: str
    num_imported: int = 0
    num_already: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> why."""


@dataclass(slots=True, kw_only=True)
class ExportReport:
    """What was written."""

    num_exported: int = 0
    num_already: int = 0
    size_bytes: int = 0


def import_features(
    inputs: Sequence[Path],
    root: Path,
    options: ImportOptions,
    *,
    load_tensors: LoadTensors | None = None,
    on_progress: OnProgress = no_progress,
) -> ImportReport:
    """Feature files into a space of a cache; both are made where they are missing. Progress in videos."""
    entries = discover_features(inputs, options.array)
    importer = _Importer(root, _spec(_usual(entries, options, load_tensors), options), options, load_tensors)
    report = ImportReport(space=space_folder_name(importer.spec))
    prints = {path: fingerprint(path) for path in {entry.path for entry in entries}}
    for done, entry in enumerate(entries, start=1):
        facts = SourceFacts(path=str(entry.path), fingerprint=prints[entry.path], fps=options.fps or 0.0)
        try:
            try:
                is_new = importer.bring(entry, facts)
            except MemoryError as error:
                raise InputError(f"{entry.path} does not fit into the memory of this machine") from error
        except (InputError, CacheError, CheckpointError) as error:  # the last is how a torn .pt file is refused
            if _is_of_all(error):
                raise
            report.failed[entry.key] = str(error).splitlines()[0]
        else:
            report.num_imported += is_new
            report.num_already += not is_new
        on_progress(done, len(entries), entry.key)
    if importer.space is None:
        raise _none_of(report.failed)
    return report


def _is_of_all(error: QleError) -> bool:
    """Whether the next video would meet it too: a full disk, a folder that cannot be written. A file that is gone is its own."""
    cause = error.__cause__
    is_disk = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return isinstance(error, CacheMismatchError) or (isinstance(error, CacheError) and is_disk)


def _none_of(failed: Mapping[str, str]) -> InputError:
    key, why = next(iter(failed.items()))
    return InputError(f"none of the {len(failed)} videos can be imported; {key!r}: {why}")


def _usual(entries: Sequence[FeatureEntry], options: ImportOptions, load_tensors: LoadTensors | None) -> Header:
    """What most of the files are, which says what shape and dtype the space has: one odd file must not decide for all.

    ConfigError where no file has times and no rule is given; InputError where no shape is that of the most.
    """
    headers = _headers(entries, options, load_tensors)
    if (
        options.fps is None
        and options.clip_length_s is None
        and not any(header.has_times for header in headers.values())
    ):
        raise ConfigError(
            "the files have no times for their rows (no array `pts`), and every row needs one\n"
            "pass --clip-length SECONDS (what a row describes) or --fps (rows a second)"
        )
    counts = Counter(header.shape[1:] for header in headers.values())
    (shape, most), *others = counts.most_common()
    if others and others[0][1] == most:
        told = "; ".join(f"{_few_keys(headers, rows)} have rows of {rows}" for rows in (shape, others[0][0]))
        raise InputError(
            f"the files do not belong into one space: {told}\nimport them apart, each kind by its own --from"
        )
    return next(header for header in headers.values() if header.shape[1:] == shape)


def _few_keys(headers: Mapping[str, Header], rows: tuple[int, ...]) -> str:
    keys = [key for key, header in headers.items() if header.shape[1:] == rows]
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3:,} more" if len(keys) > 3 else "")


def _headers(
    entries: Sequence[FeatureEntry], options: ImportOptions, load_tensors: LoadTensors | None
) -> dict[str, Header]:
    """The headers of some usable files, spread evenly; where none of these is usable, that of the first one that is."""
    chosen = [
        entries[number] for number in np.linspace(0, len(entries) - 1, min(len(entries), MOST_PEEKED)).astype(int)
    ]
    headers: dict[str, Header] = {}
    failed: dict[str, str] = {}
    num_whole = 0
    for entry in dict.fromkeys((*chosen, *entries)):
        if headers and (entry not in chosen or num_whole >= MOST_READ):
            continue
        try:
            header = peek_features(entry, options.array)
            if header is None:  # or it says why not
                values, times = read_features(entry, options.array, load_tensors)
                header = Header(values.shape, values.dtype, times is not None)
                num_whole += 1
            _check_shape(header.shape, header.dtype)
        except QleError as error:
            failed[entry.key] = str(error).splitlines()[0]
        else:
            headers[entry.key] = header
    if not headers:
        raise _none_of(failed)
    return headers


def _spec(first: Header, options: ImportOptions) -> SpaceSpec:
    dtype = options.dtype or ("float16" if first.dtype == np.float16 else "float32")
    num_axes = len(first.shape)
    name = "patch" if num_axes == 4 else "frame"
    stream = Stream(name=name, row_shape=first.shape[1:], axes=AXES[num_axes], dtype=dtype)
    hashed = {
        "imported": {"name": options.name, "array": options.array},
        "sampling": options.describe_times(),
        "streams": [{"name": name, "row_shape": list(stream.row_shape), "dtype": dtype}],
    }
    return SpaceSpec(name=options.name, hashed=hashed, streams=(stream,), recorded={"imported_by": "qle cache import"})


def _check_shape(shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) not in AXES or not all(type(size) is int and size > 0 for size in shape) or dtype.kind != "f":
        raise InputError(
            f"got an array {shape} of {dtype}, expected floats (rows, dim) or "
            "(rows, grid rows, grid cols, dim) with at least one of each"
        )


@dataclass(slots=True)
class _Importer:
    """Brings videos into a space that is made for the first of them that is right: none is made for nothing."""

    root: Path
    spec: SpaceSpec
    options: ImportOptions
    load_tensors: LoadTensors | None
    space: SpaceFolder | None = None

    def __post_init__(self) -> None:
        if (self.root / space_folder_name(self.spec) / SPACE_FILE).exists():
            self.space = create_space(self.root, self.spec)
            leftovers.clear(self.space.path)

    def bring(self, entry: FeatureEntry, facts: SourceFacts) -> bool:
        """False where it is there already, from the same file."""
        key = clean_key(entry.key)
        present = None if self.space is None else self.space.committed(key)
        if present is not None and is_same_source(present.source.fingerprint, facts.fingerprint):
            return False
        values, times = self._read(entry)
        num_rows = len(values)
        if self.options.clip_length_s is not None:
            # Times are the middles of clips, so the first and the last alone would not tell where the video is cut.
            facts = facts.model_copy(update={"start_s": 0.0, "end_s": num_rows * self.options.clip_length_s})
        plan = RowPlan(frame_index=np.arange(num_rows), pts_s=times, is_valid=np.ones(num_rows, dtype=bool))
        if self.space is None:
            self.space = create_space(self.root, self.spec)
            leftovers.clear(self.space.path)  # of an import that was killed while it made the space
        space = self.space
        store, is_old = self.options.store, present is not None
        with VideoWriter.open(space, key, plan, facts, store=store, replace=is_old) as writer:
            (stream,) = self.spec.streams
            writer.write(stream.name, np.arange(num_rows), values.astype(np.float32) if values.itemsize > 4 else values)
            writer.commit()
        return True

    def _read(self, entry: FeatureEntry) -> tuple[np.ndarray, np.ndarray]:
        """Rows and their times, if they are what the space holds."""
        values, pts_s = read_features(entry, self.options.array, self.load_tensors)
        _check_shape(values.shape, values.dtype)
        (stream,) = self.spec.streams
        if values.shape[1:] != stream.row_shape:
            name = space_folder_name(self.spec)
            raise InputError(
                f"rows of {values.shape[1:]}, most files and the space {name} have rows of {stream.row_shape}"
            )
        if not np.isfinite(values).all():
            raise InputError("it holds numbers that are not finite")
        return values, self.options.times(len(values), pts_s)


def export_features(
    root: Path,
    out: Path,
    *,
    space: str | None = None,
    stream: str = "frame",
    form: Form = "npz",
    keys: Sequence[str] = (),
    save_tensor: SaveTensor | None = None,
    on_progress: OnProgress = no_progress,
) -> ExportReport:
    """A stream as files in the folder `out`, one a video, or as the one HDF5 file `out` keyed by id. Progress in videos."""
    reader = open_cache(root).space(space)
    if stream not in reader.streams:
        raise CacheMissingError(f"{reader.path.name} has no stream {stream!r}; it has {', '.join(reader.streams)}")
    names = _names(reader, is_tree=form == "h5")
    chosen = [reader.video(key).key for key in keys] if keys else list(reader)
    report = ExportReport()
    folder = out.with_name(f"{out.name}.parts") if form == "h5" else out
    notes = {"qle_space": reader.record.hash, "qle_stream": stream}
    ids = {key: safe_path(names[key]).as_posix() for key in chosen}
    if form == "h5" and _is_current(out, reader, ids, notes):
        if folder.is_dir() and ((folder / NOTES_FILE).exists() or not any(folder.iterdir())):
            _remove_parts(folder)  # an earlier removal was interrupted
        report.num_already = len(chosen)
        return report
    _note(folder, notes)
    paths = {key: folder / f"{safe_path(names[key])}.{'npz' if form == 'h5' else form}" for key in chosen}
    for parent in {path.parent for path in paths.values()}:
        remove_unnamed(parent)
    for done, key in enumerate(chosen, start=1):
        _export_video(reader.video(key), stream, paths[key], form, save_tensor, report)
        on_progress(done, len(chosen), key)
    if form == "h5":
        _assemble(out, folder, {ids[key]: paths[key] for key in chosen}, notes)
        report.size_bytes = out.stat().st_size
    return report


def _names(reader: Space, *, is_tree: bool) -> dict[str, str]:
    """Keys without the suffix of their video, as others name feature files, unless two would become one. `is_tree`: they are
    paths in an HDF5 file, where nothing can lie below an array: not `a` and `a/b`."""
    short = {key: str(PurePosixPath(key).with_suffix("")) if PurePosixPath(key).suffix else key for key in reader}
    for names in (short, {key: key for key in reader}):
        paths = {safe_path(name) for name in names.values()}
        is_below = is_tree and any(parent in paths for path in paths for parent in path.parents)
        if len(paths) == len(names) and not is_below:
            return names
    return {key: safe_name(key) for key in reader}


def _is_current(path: Path, reader: Space, ids: Mapping[str, str], notes: Mapping[str, str]) -> bool:
    """Whether a file holds these videos (key -> id) of this stream, written after the last of them was committed."""
    if not path.exists() or hdf5_store.read_notes(path) != notes:
        return False
    if not set(ids.values()) <= {name for name, _ in hdf5_store.list_arrays(path, "")}:
        return False
    written_s = path.stat().st_mtime
    return all(written_s >= reader.video(key).record.created.timestamp() for key in ids)


def _note(folder: Path, notes: dict[str, str]) -> None:
    """What is exported into a folder: files of another stream or space must not be taken for ours that are done."""
    path = folder / NOTES_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            replace_file(path, json.dumps(notes).encode(), "none")
        is_ours = path.read_text() == json.dumps(notes)
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror}\nrun the same command again to go on") from error
    if not is_ours:
        raise ConfigError(
            f"{folder} holds the export of another stream or space; name another folder, or delete that one"
        )


def _export_video(
    video: Video, stream: str, path: Path, form: Form, save_tensor: SaveTensor | None, report: ExportReport
) -> None:
    if path.exists() and path.stat().st_mtime >= video.record.created.timestamp():
        report.num_already += 1
        return
    values = video.rows_of(stream)[:]
    write_features(path, "npz" if form == "h5" else form, values, video.pts, save_tensor)
    report.num_exported += 1
    report.size_bytes += path.stat().st_size


def _assemble(out: Path, folder: Path, parts: dict[str, Path], notes: Mapping[str, str]) -> None:
    """The parts in one HDF5 file, which appears when it is whole; only then the parts go."""

    def arrays() -> Any:
        for name, path in parts.items():
            with np.load(path, allow_pickle=False) as file:
                yield name, file[FEATURES], file["pts"]

    whole = folder / ".whole.h5"
    try:
        hdf5_store.write_arrays(whole, arrays(), notes)
        os.replace(whole, out)
    except OSError as error:
        raise CacheError(f"cannot write {out}: {error}\nrun the same command again to go on") from error
    _remove_parts(folder)


def _remove_parts(folder: Path) -> None:
    """The notes go last: as long as they are there, the folder is known to be ours."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != NOTES_FILE:
                path.unlink()
        shutil.rmtree(folder)
