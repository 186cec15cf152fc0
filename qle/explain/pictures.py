"""Arrays to pictures inside the page (data URIs) and to files. What is shown is made small; what is measured never is.

ExplainedFrame with its picture -> encoded -> the same with a few kilobytes of text in place of the picture
"""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from qle.durable import name_beside
from qle.explain.explained import EncodedFrame, ExplainedFrame
from qle.explain.overlay import LEGEND_GREY, tint

PAGE_SIDE = 480
"""Pixels of the longer side of a picture in the page: sharp on a fine screen at the width of a column."""
JPEG_QUALITY = 86
BARE_MAP_SIDE = 240
"""Pixels of a map that has no picture below it."""
MAP_SHARE = 3
"""Colours over a frame are smooth, so they have a third of its pixels a side; the browser fills in the rest."""


def encoded(frame: ExplainedFrame) -> ExplainedFrame:
    """The frame as the page shows it. Its picture is given up: those of many videos would not fit into memory."""
    if frame.encoded is not None:
        return frame
    picture = shrunk(frame.frame) if frame.frame is not None else _bare(frame.relevance)
    colours = ""
    if frame.relevance is not None:
        size = max(1, picture.shape[0] // MAP_SHARE), max(1, picture.shape[1] // MAP_SHARE)
        colours = data_uri(tint(frame.relevance, frame.scale, size, frame.region), exact=True)
    return replace(frame, frame=None, encoded=EncodedFrame(picture=data_uri(picture), colours=colours))


def _bare(relevance: np.ndarray | None) -> np.ndarray:
    rows, cols = (1, 1) if relevance is None else relevance.shape
    factor = BARE_MAP_SIDE / max(rows, cols)
    return np.full((round(rows * factor), round(cols * factor), 3), LEGEND_GREY, np.uint8)


def shrunk(rgb: np.ndarray, side: int = PAGE_SIDE) -> np.ndarray:
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
    beside = name_beside(path)
    try:
        Image.fromarray(rgb).save(beside, "PNG")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
