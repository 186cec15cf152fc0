"""What a backbone gives -> what the cache stores: choice of streams, pooled grid, stored dtype.

Runs on the device, so that only stored bytes travel to the host. The one place that knows `--tokens`, `--grid`, `--dtype`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from qle.errors import ConfigError
from qle.extract.request import TokenOptions
from qle.types import Stream

TORCH_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def stored_streams(native: Sequence[Stream], options: TokenOptions) -> tuple[Stream, ...]:
    """The streams of a space, from the streams that its backbone gives."""
    stored = []
    for stream in native:
        if stream.name != "patch":
            dtype = "float16" if options.dtype == "int8" else options.dtype
            stored.append(Stream(name=stream.name, row_shape=stream.row_shape, axes=stream.axes, dtype=dtype))
        elif options.tokens == "patch":
            shape = _pooled_shape(stream, options.grid)
            stored.append(Stream(name="patch", row_shape=shape, axes=stream.axes, dtype=options.dtype))
            if options.dtype == "int8":
                stored.append(Stream(name="scale", row_shape=shape[:2], axes=stream.axes[:2], dtype="float32"))
    return tuple(stored)


def _pooled_shape(patch: Stream, grid: int | None) -> tuple[int, ...]:
    if grid is None:
        return patch.row_shape
    rows, cols, dim = patch.row_shape
    if grid > min(rows, cols):
        raise ConfigError(f"--grid {grid}: the patch map of this backbone is only {rows}x{cols}")
    return (grid, grid, dim)


@torch.no_grad()
def to_stored(encoded: Mapping[str, Tensor], streams: Sequence[Stream]) -> dict[str, Tensor]:
    """Each stored stream as "batch time ..." in its stored dtype (bfloat16 still as such: `to_numpy` views it)."""
    stored = {}
    for stream in streams:
        if stream.name == "scale":
            continue
        values = encoded[stream.name]
        if stream.name == "patch":
            values = _pool(values, stream.row_shape[0], stream.row_shape[1])
        if stream.dtype == "int8":
            stored["patch"], stored["scale"] = quantise(values)
        else:
            stored[stream.name] = values.to(TORCH_DTYPES[stream.dtype])
    return stored


def _pool(patch: Tensor, rows: int, cols: int) -> Tensor:
    batch, time, native_rows, native_cols, dim = patch.shape
    if (native_rows, native_cols) == (rows, cols):
        return patch
    maps = patch.reshape(batch * time, native_rows, native_cols, dim).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(maps, (rows, cols)).permute(0, 2, 3, 1).reshape(batch, time, rows, cols, dim)


def quantise(patch: Tensor) -> tuple[Tensor, Tensor]:
    """int8 tokens and their float32 scales: token = int8 * scale, with the largest channel of each token at +-127."""
    patch = patch.float()
    scale = patch.abs().amax(dim=-1) / 127
    steps = patch / scale.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
    # A non-finite token has a non-finite scale, by which `finite_rows` finds it; its steps must not trap in the cast.
    return torch.nan_to_num(steps, nan=0.0, posinf=0.0, neginf=0.0).round().clamp(-127, 127).to(torch.int8), scale


@torch.no_grad()
def finite_rows(stored: Mapping[str, Tensor]) -> Bool[Tensor, "batch time"]:
    """Rows of which every number can be stored; float16 overflow shows here."""
    # The largest magnitude is not finite where any number is not: ten times cheaper than a question to every number.
    largest = [values.flatten(2).abs().amax(dim=-1) for values in stored.values() if values.is_floating_point()]
    return torch.isfinite(torch.stack([peak.float() for peak in largest])).all(dim=0)


def to_numpy(values: Tensor) -> np.ndarray:
    """Host array in the dtype of the bytes on disk (bfloat16 as uint16)."""
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()
