"""The feature files that others write and read: .npz, .npy, .pt, .h5 and .hdf5, one video a file or keyed by id.

    {vid}.npz [features]   {vid}.npy   {vid}.pt (a tensor)   features.h5 [vid]   features.h5 [vid/features]

Enters a path, leaves arrays (rows, dim) or (rows, grid rows, grid cols, dim), with their times where the file has them.
Nothing is unpickled here: numpy is told not to, and .pt files go through the loader that the caller brings, since this
layer knows no torch.
"""

import math
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Literal
from zipfile import BadZipFile, ZipFile

import numpy as np

from qle.cache.files import hdf5_store
from qle.cache.layout import safe_name
from qle.durable import UNNAMED, owned_name
from qle.errors import CacheError, InputError, MissingDependencyError
from qle.inputs import refuse_bomb

_PLAIN_PART = re.compile(r"(?!\.)[^\x00-\x1f\x7f\\%~:]{1,60}")
"""What every file system takes, what hides nothing, and what no escaped part looks like."""

Form = Literal["npz", "npy", "pt", "h5"]
SUFFIXES: dict[str, Form] = {".npz": "npz", ".npy": "npy", ".pt": "pt", ".pth": "pt", ".h5": "h5", ".hdf5": "h5"}
FEATURES = "features"
"""Name of the array where a file holds several."""

UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, SyntaxError),
    *(TokenError, BadZipFile, zlib.error),
)
"""What numpy and h5py raise for files that are torn or something else. MemoryError: a header that promises more than there is.
RuntimeError: a zip that wants a password, or a method that Python does not know. SyntaxError, TokenError: a torn header."""

LoadTensors = Callable[[Path], dict[str, np.ndarray]]
"""Arrays of a .pt file by name; the one of a bare tensor is FEATURES."""
SaveTensor = Callable[[Path, np.ndarray], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureEntry:
    """One video in a feature file."""

    key: str
    path: Path
    form: Form
    dataset: str = ""
    """Inside an HDF5 file."""


def discover_features(inputs: Sequence[Path], array: str = FEATURES) -> list[FeatureEntry]:
    """Every video in files and folders, sorted by key: the path below the folder without suffix, or the id in the file."""
    entries: dict[str, FeatureEntry] = {}
    for given in inputs:
        for path in _files(given):
            stem = path.relative_to(given).with_suffix("").as_posix() if given.is_dir() else path.stem
            for entry in _entries(path, stem, array):
                if entry.key in entries:
                    raise InputError(
                        f"two feature files for {entry.key!r}: {entries[entry.key].path} and {entry.path}\n"
                        "import them one after the other, under different names"
                    )
                entries[entry.key] = entry
    if not entries:
        raise InputError(f"no {', '.join(SUFFIXES)} files in {', '.join(map(str, inputs))}")
    return [entries[key] for key in sorted(entries)]


def read_features(
    entry: FeatureEntry, array: str = FEATURES, load_tensors: LoadTensors | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The array of a video, and the times of its rows where the file has them."""
    try:
        if entry.form == "h5":
            return hdf5_store.read_array(entry.path, entry.dataset)
        if entry.form == "npy":
            return read_array(entry.path), None
        if entry.form == "npz":
            arrays = read_archive(entry.path, lambda names: (_chosen(entry.path, names, array), "pts"))
            times = arrays.pop("pts", None)
            return next(iter(arrays.values())), times
    except UNREADABLE as error:
        raise InputError(f"{entry.path} cannot be read: {next(iter(str(error).splitlines()), repr(error))}") from error
    if load_tensors is None:
        raise MissingDependencyError(f"{entry.path} needs torch to be read\npip install torch")
    loaded = load_tensors(entry.path)
    return loaded[_chosen(entry.path, list(loaded), array)], loaded.get("pts")


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file. Raises one of UNREADABLE."""
    with open(path, "rb") as file:
        shape, dtype = _npy_header(file)
        if math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size:
            raise ValueError(f"claims to be {shape} of {dtype}, and the file is too short for it")
        file.seek(0)
        values: np.ndarray = np.load(file, allow_pickle=False)
    return values


def read_archive(path: Path, choose: Callable[[list[str]], Iterable[str]]) -> dict[str, np.ndarray]:
    """Those arrays of an .npz file that `choose` picks of their names, and that are there. Raises one of UNREADABLE."""
    with ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = [name for name in choose(list(members)) if name in members]
        for name in chosen:
            refuse_bomb(members[name].compress_size, members[name].file_size)
            with archive.open(members[name]) as member:
                shape, dtype = _npy_header(member)
            if math.prod(shape) * dtype.itemsize > members[name].file_size:
                raise ValueError(f"{name} claims to be {shape} of {dtype}, and the file is too short for it")
    # Opened here, since numpy leaves a file open that turns out to be no archive.
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in chosen}


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a file say of the array of a video."""

    shape: tuple[int, ...]
    dtype: np.dtype
    has_times: bool


def peek_features(entry: FeatureEntry, array: str = FEATURES) -> Header | None:
    """The header of a video's array; None for .pt files, which are read whole or not at all, and what cannot be read."""
    try:
        if entry.form == "h5":
            return Header(*hdf5_store.peek_array(entry.path, entry.dataset))
        if entry.form == "npy":
            with open(entry.path, "rb") as opened:
                return Header(*_npy_header(opened), has_times=False)
        if entry.form == "npz":
            with ZipFile(entry.path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                with archive.open(f"{_chosen(entry.path, names, array)}.npy") as member:
                    return Header(*_npy_header(member), has_times="pts" in names)
    except (
        *UNREADABLE,
        InputError,
        AttributeError,
    ):  # said when it is read; AttributeError: a group where a dataset should be
        return None
    return None


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(type(size) is not int or size < 0 for size in shape):  # (True, 4) passes for numpy
        raise ValueError(f"a shape of {shape}, expected whole numbers")
    return shape, dtype


def write_features(
    path: Path, form: Form, values: np.ndarray, pts_s: np.ndarray, save_tensor: SaveTensor | None = None
) -> None:
    """One video as one file that appears when it is whole. .npz holds `features` and `pts`, the others only features.

    What a killed command has left beside it stays: looking for that would list the folder again for each of its files.
    """
    beside = path.with_name(owned_name(UNNAMED, ".tmp"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            if form == "npz":
                np.savez(file, features=values, pts=pts_s)
            elif form == "npy":
                np.save(file, values)
        if form == "pt":
            if save_tensor is None:
                raise MissingDependencyError("writing .pt files needs torch\npip install torch")
            save_tensor(beside, values)
        os.replace(beside, path)
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror or error}\nrun the same command again to go on"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def safe_path(key: str) -> Path:
    """A key as a relative path that cannot leave the folder that it is put into; ordinary keys stay as they are."""
    parts = [part if _PLAIN_PART.fullmatch(part) else safe_name(part) for part in key.split("/") if part]
    return Path(*parts) if parts else Path(safe_name(key))


def _files(given: Path) -> Iterator[Path]:
    if given.is_dir():
        for folder, folders, names in os.walk(given):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)
    elif not given.exists():
        raise InputError(f"{given} does not exist: name feature files or folders of them")
    elif given.suffix.lower() in SUFFIXES:
        yield given
    else:
        raise InputError(f"{given} is no feature file: expected one of {', '.join(SUFFIXES)}")


def _entries(path: Path, stem: str, array: str) -> Iterator[FeatureEntry]:
    form = SUFFIXES[path.suffix.lower()]
    if form != "h5":
        yield FeatureEntry(key=stem, path=path, form=form)
        return
    try:
        arrays = hdf5_store.list_arrays(path, array)
    except UNREADABLE:  # said when it is read, so that the other files of the folder come in
        arrays = [("", array)]
    for name, dataset in arrays:
        yield FeatureEntry(key=name or stem, path=path, form=form, dataset=dataset)


def _chosen(path: Path, names: Collection[str], array: str) -> str:
    """The name of the array that holds the features of a file: as asked, or the only one."""
    others = [name for name in names if name != "pts"]
    if array in names:
        return array
    if len(others) == 1:
        return others[0]
    raise InputError(f"{path} holds {', '.join(sorted(names)) or 'nothing'}; choose one of them with --array")
