"""Foreign weight files: opened without running anything in them, fitted exactly or refused, and named by what they hold.

    path --load_file--> tensors (and plain values) --load_exactly--> module        state_digest(tensors) -> sha256

A pickle is a program. Every torch file goes through `weights_only=True`, with a short allow-list of harmless things that
published training checkpoints really contain; anything else in a file is refused by name, never executed.
"""

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar as numpy_scalar
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from qle.errors import CheckpointError

_NUMBER_KINDS = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)

ALLOWED_GLOBALS: list[Any] = [
    argparse.Namespace,  # the settings of the run
    (numpy_scalar, "numpy._core.multiarray.scalar"),  # learning rates that came from a numpy schedule
    (numpy_scalar, "numpy.core.multiarray.scalar"),  # the same, written before numpy 2
    np.dtype,
    *(type(np.dtype(kind)) for kind in _NUMBER_KINDS),
]
"""What a torch file may name beside tensors and plain containers. None of it runs code of the file."""

MAX_LISTED = 4
"""Tensors that an error message names before it counts the rest."""


def load_file(path: Path) -> Any:
    """Whatever the file holds: a dict of tensors for safetensors, the pickled object for torch files. Tensors are mapped
    from the file where the format allows it, so treat them as read-only and copy what must outlive the file."""
    head = _read_head(path)
    try:
        if _is_safetensors(head):
            return load_safetensors(path)
        if zipfile.is_zipfile(path) or head[:1] == b"\x80":
            return _load_torch(path)
    except (SafetensorError, EOFError, RuntimeError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: damaged or cut short ({_first_line(error)})\ncompare its size with the source and download it again"
        ) from error
    if head.startswith(b"PK\x03\x04"):  # the directory of a zip stands at its end
        raise CheckpointError(
            f"{path}: cut short ({path.stat().st_size:,} bytes of an archive without its end)\n"
            "compare its size with the source and download it again"
        )
    raise CheckpointError(
        f"{path}: neither a safetensors file nor a torch checkpoint (it begins with {head[:16]!r})\n"
        "pass the weights file itself; a web page or an archive saved under its name is the usual cause"
    )


def read_header(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors; nothing for other files, or where it says nothing."""
    if not _is_safetensors(_read_head(path)):
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut short ({_first_line(error)})\ndownload it again") from error


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such weights file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read as a weights file ({error.strerror})") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty\ndownload it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: a git-lfs pointer, not the weights themselves\nrun: git lfs pull (in the folder that it was cloned to)"
        )
    return head


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes of header length, then a JSON object. A pickle or zip cannot look like that.
    return len(head) > 8 and head[8:9] == b"{"


def _load_torch(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)  # files from before torch 1.6 are bare pickles, which cannot be mapped
    try:
        with torch.serialization.safe_globals(ALLOWED_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own legacy storage classes
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    message = str(error)
    if match := re.search(r"GLOBAL\s+([A-Za-z_][\w.]*)|(?:class|global:?)\s+([A-Za-z_][\w.]*\.\w+)", message):
        return CheckpointError(
            f"{path}: refused, because loading it would call {match[1] or match[2]}; a file of weights needs no code\n"
            "if you trust its source, save its state dict as safetensors where it was made, and pass that file"
        )
    if "Unsupported operand" in message:  # an instruction that torch.save never writes
        return CheckpointError(
            f"{path}: refused: a pickle, but not one that torch wrote, and it may hold code\n"
            "if you trust its source, save its tensors as safetensors where it was made, and pass that file"
        )
    return CheckpointError(
        f"{path}: damaged or cut short (the pickle in it ends early or makes no sense)\ndownload it again"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over the sorted names, dtypes, shapes and bytes: the same tensors in any file format give the same digest."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        shape = ",".join(str(size) for size in tensor.shape)
        digest.update(f"{name}|{str(tensor.dtype).removeprefix('torch.')}|{shape}\n".encode())
        if tensor.numel():  # hashlib reads the tensor's own memory, nothing is copied
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy `state` into `module` if, and only if, names and shapes are exactly the module's. `where` opens the message."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    check_tensors(expected, state, where=where)
    module.load_state_dict(state)


def check_tensors(expected: Mapping[str, Iterable[int]], state: Mapping[str, Tensor], *, where: str) -> None:
    """CheckpointError that lists what is missing, unexpected or misshapen, unless `state` is exactly what is expected."""
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name])}"
        for name in sorted(expected.keys() & state.keys())
        if tuple(state[name].shape) != tuple(expected[name])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise CheckpointError(
            f"{where}: the tensors do not fit this model ({len(state)} given, {len(expected)} needed)\n{listed}"
        )


def _listed(names: list[str]) -> str:
    rest = f", ... and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + rest
