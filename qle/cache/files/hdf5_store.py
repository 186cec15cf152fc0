"""HDF5: one file per video, every dataset contiguous. The only file that imports h5py.

A contiguous dataset without filters is its plain C-order rows at one place of the file. So h5py lays the file out
(space allocated at once, never filled, large datasets aligned to pages), we take the offsets, close it, and write and
map the rows ourselves; any HDF5 reader opens the result. One writer a file, no SWMR, no appends.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qle.cache.handles import folder_handle, refuse_links_below, remove
from qle.cache.records import RawRows, StreamRecord
from qle.inputs import refuse_bomb
from qle.types import Stream

FILE_NAME = "tokens.h5"
ALIGNMENT = 4096


def create(space: Path, folder: Path, streams: Sequence[Stream], num_rows: int) -> dict[str, RawRows]:
    """Lay out the file of a video in a folder below a space, without any data; the writer fills in the rows where the result
    says. HDF5 goes by the path: "x" keeps it from writing into a file that is there, or through a link."""
    import h5py

    offsets = {}
    path = folder / FILE_NAME
    with folder_handle(space, folder):  # no link leads there
        remove(space, path)
    with h5py.File(
        path, "x", libver=("v110", "v110"), alignment_threshold=ALIGNMENT, alignment_interval=ALIGNMENT
    ) as file:
        for stream in streams:
            dataset = _create_dataset(file, stream, num_rows)
            offsets[stream.name] = dataset.id.get_offset()
    return {name: RawRows(path=FILE_NAME, rows_per_file=num_rows, offset=offset) for name, offset in offsets.items()}


def _create_dataset(file: Any, stream: Stream, num_rows: int) -> Any:
    import h5py

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)  # equal content, equal bytes
    kind = h5py.h5t.py_create(stream.stored_dtype, logical=True)
    space = h5py.h5s.create_simple((num_rows, *stream.row_shape))
    h5py.h5d.create(file.id, stream.name.encode(), kind, space, creation)
    dataset = file[stream.name]
    for index, axis in enumerate(("time", *stream.axes)):
        dataset.dims[index].label = axis
    dataset.attrs["qle_dtype"] = stream.dtype
    if stream.name == "pts":
        dataset.attrs["units"] = "seconds"
    return dataset


def read_rows(folder: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Stored values of a dataset in any layout, by h5py: slow and general."""
    import h5py

    refuse_links_below(folder)
    with h5py.File(folder / FILE_NAME, "r", locking=False) as file:
        return np.asarray(_own_dataset(file, name)[start:stop])


def array_shape(folder: Path, name: str) -> tuple[int, ...]:
    """Shape of a dataset, as its own description says."""
    import h5py

    refuse_links_below(folder)
    with h5py.File(folder / FILE_NAME, "r", locking=False) as file:
        return tuple(_own_dataset(file, name).shape)


def misplaced(folder: Path, streams: Sequence[StreamRecord]) -> str:
    """What a record says of the arrays in the file of a video that the file itself does not say; empty where nothing is."""
    import h5py

    try:
        with h5py.File(folder / FILE_NAME, "r", locking=False) as file:
            for stream in streams:
                dataset = _own_dataset(file, stream.name)
                if dataset.shape != stream.shape:
                    return f"stream {stream.name!r}: the file has no such array of {stream.shape}"
                if stream.raw is not None and dataset.id.get_offset() != stream.raw.offset:
                    begin = dataset.id.get_offset()
                    return f"stream {stream.name!r}: its rows begin at byte {begin}, not at {stream.raw.offset}"
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        return f"{FILE_NAME} cannot be read: {error}"
    return ""


def _own_dataset(file: Any, name: str) -> Any:
    """A dataset whose numbers lie in this very file; ValueError for one that would be read out of another.

    Links to other places, datasets in external files and virtual ones over other files give whatever the reader may read.
    """
    import h5py

    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if path not in file and file.get(path, getlink=True) is None:
            raise KeyError(f"no array {name!r}")
        if not isinstance(file.get(path, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is a link to another place, which is not followed")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} takes its numbers out of other files, which are not read")
    return dataset


def list_arrays(path: Path, array: str) -> list[tuple[str, str]]:
    """Feature arrays of a foreign file as (id, name): datasets keyed by id, or groups keyed by id that hold `array`.

    The id is empty where the whole file is one video, with `array` at its top.
    """
    import h5py

    arrays: list[tuple[str, str]] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.ndim < 2:
            return
        add(name)

    def visit_link(name: str, link: Any) -> None:
        if not isinstance(link, h5py.HardLink) and not name.endswith("pts"):
            add(name)  # nobody follows it, which is said when it is read

    def add(name: str) -> None:
        folder, _, last = name.rpartition("/")
        arrays.append((folder if last == array else name, name))

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)
        file.visititems_links(visit_link)
    return sorted(arrays)


def read_array(path: Path, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A dataset of a foreign file, and the times that stand with it: an attribute or a neighbour named `pts`."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        dataset = _own_dataset(file, name)
        values = _read_whole(dataset)
        if "pts" in dataset.attrs:
            return values, np.asarray(dataset.attrs["pts"])
        neighbour = "/".join([*name.split("/")[:-1], "pts"])
        is_there = (
            file.get(neighbour, getlink=True) is not None and file.get(neighbour, getclass=True) is not h5py.Group
        )
        return values, _read_whole(_own_dataset(file, neighbour)) if is_there else None


def _read_whole(dataset: Any) -> np.ndarray:
    """All of a dataset; ValueError for one that would fill the memory, by its length or by that of one of its chunks."""
    if dataset.dtype.kind not in "fiub":
        raise ValueError(f"{dataset.name} holds {dataset.dtype}, expected numbers")
    for shape in (dataset.shape, dataset.chunks or ()):
        refuse_bomb(dataset.id.get_storage_size(), math.prod(shape) * dataset.dtype.itemsize)
    return np.asarray(dataset[()])


def peek_array(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape and dtype of a dataset of a foreign file, and whether times stand with it."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        dataset = _own_dataset(file, name)
        return dataset.shape, dataset.dtype, "pts" in dataset.attrs or "pts" in dataset.parent


def read_notes(path: Path) -> dict[str, str]:
    """The text attributes of a file; none where it is no HDF5 file."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return {name: value for name, value in file.attrs.items() if isinstance(value, str)}
    except OSError:
        return {}


def write_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray, np.ndarray]], notes: Mapping[str, str]) -> None:
    """A file for other programs: a dataset for each (id, values, times), with the times as its attribute `pts`."""
    import h5py

    with h5py.File(path, "w", libver=("v110", "v110")) as file:  # attributes beyond 64 kB need a format this new
        file.attrs.update(notes)
        for name, values, pts_s in arrays:
            file.create_dataset(name, data=values).attrs["pts"] = pts_s
