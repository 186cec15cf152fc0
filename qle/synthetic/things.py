"""The objects on the wall: polyp (a dome), ring, clip (a bent and notched bar), capsule (two lobes and a dark band).

    Event, camera -> Thing.sprite(time) in a bounding box of about 60 pixels

Each takes 1 to 5 % of the picture. Shapes are signed distances in pixels of a 224-pixel frame; they differ where an encoder
with patches of 16 pixels can see it: a hole, an elbow with notches, a band, or nothing but shading.
"""

import colorsys
from collections.abc import Callable

import numpy as np

from qle.synthetic.script import Event
from qle.synthetic.sprites import Sprite, fade, light_at, patch_around

FADE_S = 0.3
BASE_HSV = {
    "green": (0.37, 0.78, 0.72),
    "blue": (0.615, 0.80, 0.88),
    "yellow": (0.145, 0.82, 0.97),
    "white": (0.12, 0.05, 0.98),
    "purple": (0.785, 0.68, 0.74),
}
REACH = 36.0
"""Pixels from the middle that no shape exceeds."""

Surface = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Signed distance (negative inside), shade, and shine, each (height, width)."""
Camera = Callable[[float], tuple[float, float]]
"""Where the picture has drifted to at a time, in fractions of it."""


class Thing:
    """One object of a script."""

    def __init__(self, event: Event, camera: Camera, size: int) -> None:
        rng = np.random.default_rng(event.seed)
        self._event, self._camera, self._size = event, camera, size
        hue, saturation, value = BASE_HSV[event.colour]
        varied = (
            (hue + rng.uniform(-0.018, 0.018)) % 1,
            saturation * rng.uniform(0.88, 1.1),
            min(value * rng.uniform(0.88, 1.08), 1),
        )
        self._rgb = np.array(colorsys.hsv_to_rgb(varied[0], min(varied[1], 1.0), varied[2]), np.float32)
        self._scale = float(rng.uniform(1.0, 1.14))
        self._phase = float(rng.uniform(0, 2 * np.pi))
        self._shape = SHAPES[event.object]
        middle_s = (event.start_s + event.end_s) / 2
        self._rest = camera(middle_s)

    def middle(self, time_s: float) -> tuple[float, float]:
        """Its middle, in fractions of the picture: the wall moves with the camera, a little less in the far."""
        x, y = self._camera(time_s)
        at = self._event.at
        return (
            float(np.clip(at[0] + x - self._rest[0], 0.05, 0.95)),
            float(np.clip(at[1] + y - self._rest[1], 0.05, 0.95)),
        )

    def sprite(self, time_s: float, light: np.ndarray) -> Sprite | None:
        event = self._event
        opacity = fade(time_s, event.start_s, event.end_s, FADE_S)
        if opacity <= 0:
            return None
        x, y = self.middle(time_s)
        unit = self._size / 224 * self._scale * (1 + 0.03 * np.sin(0.9 * time_s + self._phase))
        centre, reach = (x * self._size, y * self._size), REACH * unit
        patch = patch_around(
            self._size, (centre[0] - reach, centre[0] + reach), (centre[1] - reach, centre[1] + reach), centre
        )
        if patch is None:
            return None
        angle = event.angle + 0.08 * np.sin(0.7 * time_s + self._phase)
        cos, sin = np.float32(np.cos(angle) / unit), np.float32(np.sin(angle) / unit)
        distance, shade, shine = self._shape(patch.x * cos + patch.y * sin, patch.y * cos - patch.x * sin, self._phase)
        inside = np.clip(0.5 - distance * unit, 0, 1)
        shadow = np.clip(1 - distance / 5, 0, 1) * 0.35 * (1 - inside)  # where it meets the wall
        alpha = (inside + shadow).astype(np.float32)
        bright = 0.62 + 0.42 * light_at(light, x, y)
        rgb = (self._rgb * shade[..., None] * bright + shine[..., None]) * (inside / np.maximum(alpha, 1e-6))[..., None]
        return Sprite(
            top=patch.top, left=patch.left, alpha=alpha * opacity, rgb=rgb.astype(np.float32),
            is_thing=(inside > 0.5) & (opacity >= 0.5),
        )  # fmt: skip


def _polyp(x: np.ndarray, y: np.ndarray, phase: float) -> Surface:
    """A dome with a soft highlight; its outline is not quite round."""
    radius = np.hypot(x, y * 1.08)
    wobble = 1 + 0.05 * np.sin(0.11 * x + phase) * np.cos(0.09 * y - phase)
    part = radius * wobble / 22.5
    dome = np.sqrt(np.clip(1 - part**2, 0, 1))
    shine = 0.55 * np.exp(-((x + 7) ** 2 + (y + 8) ** 2) / 30)
    return (part - 1) * 22.5, 0.45 + 0.62 * dome, shine


def _ring(x: np.ndarray, y: np.ndarray, phase: float) -> Surface:
    """A round band with a wide hole through which the wall is seen."""
    from_middle = np.hypot(x, y) - 18.5
    tube = np.sqrt(np.clip(1 - (from_middle / 6.8) ** 2, 0, 1))
    shine = 0.4 * np.clip(tube - 0.9, 0, 1) * 10 * (np.sin(0.09 * (x - y) + phase) > 0.4) * 0.6
    return np.abs(from_middle) - 6.8, 0.45 + 0.62 * tube, shine


def _clip(x: np.ndarray, y: np.ndarray, phase: float) -> Surface:
    """Two arms that meet at about a right angle, with dark notches across them."""
    x, y = x + 10, y + 10
    arms = [_segment(x, y, (0.0, 0.0), end) for end in ((34.0, 0.0), (3.0, 34.0))]
    (near, along), (other_near, other_along) = arms
    distance = np.minimum(near, other_near)
    run = np.where(near < other_near, along, other_along)
    notch = np.sin(run * (2 * np.pi / 8.5)) > 0.15
    ridge = np.clip(1 - distance / 6.8, 0, 1)
    return distance - 6.8, np.where(notch, 0.42, 0.78 + 0.34 * ridge), 0.25 * (ridge > 0.85) * ~notch


def _capsule(x: np.ndarray, y: np.ndarray, phase: float) -> Surface:
    """Elongated, with a waist and a nearly black band around it."""
    distance, _ = _segment(x, y, (-19.0, 0.0), (19.0, 0.0))
    width = 9.0 + 3.6 * np.clip(np.abs(x) / 16, 0, 1)
    part = np.clip(distance / width, 0, 1)
    shade = np.where(np.abs(x) < 5.0, 0.16, 0.5 + 0.58 * np.sqrt(1 - part**2))
    shine = 0.4 * np.exp(-(((np.abs(x) - 17) / 7) ** 2) - ((y + 4) / 2.5) ** 2)
    return distance - width, shade, shine


def _segment(
    x: np.ndarray, y: np.ndarray, a: tuple[float, float], b: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel to a line from a to b, and how far along it its nearest point is."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = float(np.hypot(dx, dy))
    along = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / length, 0, length)
    return np.hypot(x - a[0] - along * dx / length, y - a[1] - along * dy / length), along


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray, float], Surface]] = {
    "polyp": _polyp,
    "ring": _ring,
    "clip": _clip,
    "capsule": _capsule,
}
