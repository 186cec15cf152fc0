"""Arrays to pictures inside the page (data URIs) and to files. What is shown is made small; what is measured never is."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

PAGE_SIDE = 480
"""Pixels of the longer side of a picture in the page: sharp on a fine screen at the width of a column."""
JPEG_QUALITY = 86


def shown(rgb: np.ndarray, side: int = PAGE_SIDE) -> np.ndarray:
    """The same picture with no side longer than `side`."""
    height, width = rgb.shape[:2]
    if max(height, width) <= side:
        return rgb
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def data_uri(rgb: np.ndarray, *, exact: bool = False) -> str:
    """PNG where colours are read off (legends) or lie over a picture (four channels), else JPEG."""
    target = io.BytesIO()
    if exact:
        Image.fromarray(rgb).save(target, "PNG")
    else:
        Image.fromarray(rgb).save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode('ascii')}"


def write_png(path: Path, rgb: np.ndarray) -> None:
    """The file appears when it is whole."""
    beside = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(rgb).save(beside, "PNG")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
