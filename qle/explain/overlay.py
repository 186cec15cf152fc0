"""Relevance maps over frames: yellow speaks for the query, blue against it, nothing is painted where the map is zero.

    frame + map + the one scale of its query -> picture;   map + scale -> colours alone, to lie over a picture
    legend -> what the colours are worth

Tissue is red and pink, so the usual red for "hot" would drown in it. Yellow and blue are told apart by every common form of
colour blindness and differ in lightness, which survives a grey printer. Opacity grows with |value|: below the scale it is
proportional, above it stays. Frames come in as arrays and go out as arrays; who writes a film of them is not known here.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from qle.explain.maps import WHOLE, Region, upsample

FOR_COLOUR = (255, 220, 0)
AGAINST_COLOUR = (30, 80, 255)
MAX_OPACITY = 0.72
"""At and above the scale; the tissue below must stay visible."""
LEGEND_GREY = 118
"""Behind the colours of a legend: as dark as tissue in the middle, so that both colours look as they do there."""


def overlay(frame: np.ndarray, relevance: np.ndarray, scale: float, region: Region = WHOLE) -> np.ndarray:
    """(height, width, 3) uint8: the frame with its (rows, cols) map painted on; |value| = scale has the full colour."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"overlay takes a uint8 frame (height, width, 3), got {frame.dtype} {frame.shape}")
    if not scale > 0:
        raise ValueError(f"the scale of a map is above 0, got {scale}")
    height, width, _ = frame.shape
    return paint(frame, upsample(relevance, height, width, region) / scale)


def tint(relevance: np.ndarray, scale: float, size: tuple[int, int], region: Region = WHOLE) -> np.ndarray:
    """(height, width, 4) uint8 of that size: colour and opacity, which a browser lays over the frame as `overlay` does."""
    if not scale > 0:
        raise ValueError(f"the scale of a map is above 0, got {scale}")
    colour, opacity = _colours(upsample(relevance, *size, region) / scale)
    painted: np.ndarray = np.concatenate([colour, np.rint(255 * opacity)], axis=-1).astype(np.uint8)
    return painted


def paint(frame: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Blend by |strength| (1 and more: full), coloured by its sign."""
    colour, opacity = _colours(strength)
    blended: np.ndarray = np.rint(frame * (1 - opacity) + colour * opacity).astype(np.uint8)
    return blended


def _colours(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(height, width, 3) colour by the sign, (height, width, 1) opacity in 0..1 by the size."""
    opacity = (MAX_OPACITY * np.clip(np.abs(strength), 0, 1))[..., None].astype(np.float32)
    colour = np.where(strength[..., None] > 0, np.array(FOR_COLOUR, np.float32), np.array(AGAINST_COLOUR, np.float32))
    return colour, opacity


def legend(width: int = 240, height: int = 14) -> np.ndarray:
    """(height, width, 3) uint8: from minus the scale at the left over nothing in the middle to plus the scale."""
    strength = np.broadcast_to(np.linspace(-1, 1, width), (height, width))
    return paint(np.full((height, width, 3), LEGEND_GREY, np.uint8), strength)


def overlay_frames(
    frames: Iterable[np.ndarray],
    maps: Iterable[np.ndarray],
    probabilities: Iterable[float],
    *,
    scale: float,
    region: Region = WHOLE,
) -> Iterator[np.ndarray]:
    """Pictures of a film: the overlay, and below it a bar as long as the probability. Sides are even, as encoders want."""
    for frame, relevance, probability in zip(frames, maps, probabilities, strict=True):
        even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
        yield np.concatenate([overlay(even, relevance, scale, region), _bar(even.shape[1], probability)])


def _bar(width: int, probability: float, height: int = 12) -> np.ndarray:
    bar = np.full((height, width, 3), 32, np.uint8)
    bar[3:-3, : round(width * float(np.clip(probability, 0, 1)))] = FOR_COLOUR
    return bar
