"""Pixel masks of annotated things: one small .npz a video, several named tracks in it. numpy only.

    write_masks("masks/test/000.npz", {"green_polyp": MaskTrack(...)})
    read_masks(annotation file, "masks/test/000.npz:green_polyp") -> MaskTrack

Masks are packed to bits. A reference is relative to the annotation file, and since that may come from a stranger it never
leads out of its folder, and nothing in the file is unpickled.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from qle.cache.tools.feature_files import UNREADABLE
from qle.durable import name_beside
from qle.errors import AnnotationError

MOST_BYTES = 1 << 28
"""Bytes of all arrays of a file, unpacked; a bigger one is damaged or hostile."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_PARTS = ("times_s", "shape", "bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTrack:
    """Where one thing is, at some times; at other times nothing is known."""

    times_s: np.ndarray
    """(times,) float64, increasing: seconds from the beginning of the video."""
    masks: np.ndarray
    """(times, height, width) bool; the mask covers the whole picture whatever its resolution."""

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_ or self.times_s.shape != self.masks.shape[:1]:
            raise AnnotationError(
                f"a mask track needs (times, height, width) bool masks and as many times, "
                f"got {self.masks.dtype} {self.masks.shape} and {self.times_s.shape}"
            )
        if not np.isfinite(self.times_s).all() or (np.diff(self.times_s) <= 0).any():
            raise AnnotationError("the times of a mask track must be finite and increase")


def write_masks(path: Path, tracks: Mapping[str, MaskTrack]) -> None:
    """All tracks of a video; the file appears when it is whole."""
    arrays: dict[str, np.ndarray] = {}
    for name, track in tracks.items():
        if not _NAME.fullmatch(name):
            raise AnnotationError(f"{path}: mask name {name!r}: expected letters, digits, _ and - only")
        arrays[f"{name}.times_s"] = track.times_s.astype(np.float64)
        arrays[f"{name}.shape"] = np.array(track.masks.shape, np.int64)
        arrays[f"{name}.bits"] = np.packbits(
            track.masks.reshape(len(track.masks), int(np.prod(track.masks.shape[1:]))), axis=1
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = name_beside(path)
    try:
        with open(beside, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_masks(annotation_file: Path, reference: str) -> MaskTrack:
    """The track that an annotation of that file points to."""
    path, name = resolve_reference(annotation_file, reference)
    where = f"{annotation_file}: masks {reference!r}"
    if not path.is_file():
        raise AnnotationError(f"{where}: no such file")
    try:
        times_s, shape, bits = _read_arrays(path, name, where)
    except UNREADABLE as error:
        raise AnnotationError(f"{where}: not a readable mask file ({error})") from error
    return _unpack(times_s, shape, bits, where)


def resolve_reference(annotation_file: Path, reference: str) -> tuple[Path, str]:
    """File and name that "folder/file.npz:name" means; a reference that leads elsewhere is refused."""
    inner, _, name = reference.rpartition(":")
    parts = PurePosixPath(inner).parts
    is_inside = bool(parts) and ".." not in parts and not PurePosixPath(inner).is_absolute()
    if not is_inside or "\\" in inner or ":" in inner or "\0" in inner or not _NAME.fullmatch(name):
        raise AnnotationError(
            f"{annotation_file}: masks {reference!r}\n"
            "expected folder/file.npz:name, relative to the annotation file and below its folder"
        )
    root = annotation_file.parent.resolve()
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root):
        raise AnnotationError(f"{annotation_file}: masks {reference!r} lead out of the folder by a link")
    return path, name


def _read_arrays(path: Path, name: str, where: str) -> list[np.ndarray]:
    with zipfile.ZipFile(path) as listing:
        sizes = {entry.filename: entry.file_size for entry in listing.infolist()}
    wanted = [f"{name}.{part}" for part in _PARTS]
    if missing := [key for key in wanted if f"{key}.npy" not in sizes]:
        names = sorted({key.rpartition(".")[0] for key in (file.removesuffix(".npy") for file in sizes)})
        raise AnnotationError(f"{where}: no {missing[0]} in the file\nit has: {', '.join(names[:8]) or 'nothing'}")
    if sum(sizes[f"{key}.npy"] for key in wanted) > MOST_BYTES:
        raise AnnotationError(f"{where}: more than {MOST_BYTES >> 20} MiB of masks; the file is damaged")
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[key] for key in wanted]


def _unpack(times_s: np.ndarray, shape: np.ndarray, bits: np.ndarray, where: str) -> MaskTrack:
    sides = [int(side) for side in shape] if shape.ndim == 1 and shape.dtype.kind in "iu" else []
    if len(sides) != 3 or min(sides) < 0 or sides[1] * sides[2] > 1 << 24 or times_s.dtype != np.float64:
        raise AnnotationError(f"{where}: shape {shape.tolist()}: expected times, height, width")
    count, height, width = sides
    if bits.dtype != np.uint8 or bits.shape != (count, (height * width + 7) // 8) or bits.size * 8 > MOST_BYTES:
        raise AnnotationError(f"{where}: {bits.shape} packed bytes do not hold {count} masks of {height} x {width}")
    masks = np.unpackbits(bits, axis=1, count=height * width).astype(bool).reshape(sides)
    return MaskTrack(times_s=times_s, masks=masks)
