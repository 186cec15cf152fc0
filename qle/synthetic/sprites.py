"""Small pictures that are drawn into a frame inside their bounding box only: that keeps a frame within 3 ms.

A sprite knows its opacity, its colours and which of its pixels are the thing that annotations mean.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprite:
    """What to blend into a frame."""

    top: int
    left: int
    alpha: np.ndarray
    """(height, width) float32 in [0, 1]."""
    rgb: np.ndarray
    """(height, width, 3) float32, about [0, 1]."""
    is_thing: np.ndarray
    """(height, width) bool: what masks and boxes show, as long as it can be seen well."""


class Actor(Protocol):
    """Something that is drawn from `start_s` to `end_s`; its shape is a pure function of the time."""

    def sprite(self, time_s: float, light: np.ndarray) -> Sprite | None:
        """`light` is the (rows, cols) brightness of the wall, at any resolution. None: nothing to be seen."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Pixels of a bounding box that is cut to the frame, with their coordinates from a chosen origin."""

    top: int
    left: int
    x: np.ndarray
    y: np.ndarray


def patch_around(
    size: int, x: tuple[float, float], y: tuple[float, float], origin: tuple[float, float]
) -> Patch | None:
    """The box x[0]..x[1], y[0]..y[1] in pixels; None where nothing of it is inside."""
    left, right = max(int(x[0]), 0), min(int(x[1]) + 1, size)
    top, bottom = max(int(y[0]), 0), min(int(y[1]) + 1, size)
    if left >= right or top >= bottom:
        return None
    columns = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - origin[0])
    rows = np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - origin[1])
    return Patch(top=top, left=left, x=columns[None, :], y=rows[:, None])


def paste(picture: np.ndarray, sprite: Sprite) -> None:
    """Blend in place."""
    height, width = sprite.alpha.shape
    target = picture[sprite.top : sprite.top + height, sprite.left : sprite.left + width]
    target += sprite.alpha[..., None] * (sprite.rgb - target)


def fade(time_s: float, start_s: float, end_s: float, ramp_s: float) -> float:
    """0 outside, 1 inside, in between near both ends."""
    return float(np.clip(min((time_s - start_s) / ramp_s, (end_s - time_s) / ramp_s), 0.0, 1.0))


def light_at(light: np.ndarray, x: float, y: float) -> float:
    """Brightness of the wall at a place given in fractions of the picture."""
    rows, cols = light.shape
    return float(light[min(max(int(y * rows), 0), rows - 1), min(max(int(x * cols), 0), cols - 1)])
