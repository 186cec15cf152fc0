"""Numbers in, stored bytes out, and back: float16, bfloat16 (kept in uint16) and int8 with one scale per token.

float16 and float32 are stored and returned as they are. bfloat16 and int8 come back as float32: exact for bfloat16, and
for int8 the type in which numpy multiplies fastest. Values that a type cannot hold raise, they never turn into inf:
vision transformers have a few channels with huge activations, so that is a real case and not a formality.

int8: scale = max|x| / 127 over the last axis (one token), q = round(x / scale). Measured on ViT tokens the relative
L2 error is about 2 % (cosine 0.9998) at half the size, where lossless compression of float16 saves under 10 %.
"""

import numpy as np

from qle.errors import CacheError
from qle.types import Stream

SCALE = "scale"
"""The stream that belongs to an int8 `patch`."""

FLOAT16_MAX = 65504.0


def encode(stream: Stream, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The bytes to store, and the scales where the stream is int8. Values of the stored dtype pass unchanged."""
    if values.dtype == stream.stored_dtype:
        return np.ascontiguousarray(values), None
    if values.dtype.kind != "f" or stream.dtype not in ("float16", "float32", "bfloat16", "int8"):
        raise CacheError(f"stream {stream.name!r} stores {stream.dtype}, got values of {values.dtype}")
    if stream.dtype == "int8":
        return quantise_int8(values)
    if stream.dtype == "bfloat16":
        return to_bfloat16(values), None
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(values, dtype=stream.stored_dtype), None
    except FloatingPointError:
        raise _too_large(stream.name, values) from None


def decode(stream: Stream, stored: np.ndarray, scale: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out` (float32, or any float type) with the numbers that stored bytes stand for."""
    if stream.dtype == "int8":
        if scale is None:
            raise CacheError(f"stream {stream.name!r} is int8 and has no scales")
        np.multiply(stored, scale[..., None], out=out, casting="same_kind", dtype=np.float32)
    elif stream.dtype == "bfloat16":
        from_bfloat16(stored, out)
    else:
        np.copyto(out, stored, casting="same_kind")


def decoded_dtype(stream: Stream) -> np.dtype:
    """What a reader gets."""
    return np.dtype("float32") if stream.dtype in ("bfloat16", "int8") else stream.stored_dtype


def quantise_int8(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales of every token (last axis); a token of zeros has scale 0."""
    exact = np.asarray(values, dtype=np.float32)
    peak = np.maximum(exact.max(axis=-1), -exact.min(axis=-1))
    if not peak.max(initial=0.0) <= FLOAT16_MAX:  # written so that NaN fails too
        raise _too_large("patch", exact)
    scale = peak / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > np.finfo(np.float32).tiny)
    codes = np.rint(exact * inverse[..., None])
    return np.clip(codes, -127, 127, out=codes).astype(np.int8), scale


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round to nearest even into the upper 16 bits of a float32, as uint16."""
    exact = np.ascontiguousarray(values, dtype=np.float32)
    bits = exact.view(np.uint32)
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16).astype(np.uint16)
    if np.any((rounded & 0x7F80) == 0x7F80):  # inf or NaN; a NaN's payload could even have wrapped round
        raise _too_large("bfloat16", exact)
    return rounded


def from_bfloat16(stored: np.ndarray, out: np.ndarray) -> None:
    """Exact: bfloat16 is a float32 whose lower half is zero."""
    if out.dtype == np.float32 and out.flags.c_contiguous:
        np.left_shift(stored, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(out, np.left_shift(stored, 16, dtype=np.uint32).view(np.float32), casting="same_kind")


def _too_large(name: str, values: np.ndarray) -> CacheError:
    finite = values[np.isfinite(values)]
    peak = float(np.abs(finite).max(initial=0.0))
    return CacheError(
        f"stream {name!r}: values do not fit the stored type (largest finite |x| {peak:.4g}, "
        f"{values.size - finite.size} not finite)\nstore them with --dtype float32"
    )
