"""What acts rather than sits: a grasper that is pushed in from one side, and a jet of water.

    Event -> Grasper.sprite(time), Jet.sprite(time)

Of a grasper all that is in the picture counts as the thing: its shaft says where it came from.
"""

import numpy as np

from qle.synthetic.script import Event
from qle.synthetic.sprites import Sprite, fade, light_at, patch_around

PUSH_S = 0.6
"""A grasper needs so long to come in, and again to leave."""
FADE_S = 0.25


class Grasper:
    """A grey metal shaft with a dark collar and two jaws that open and close."""

    def __init__(self, event: Event, size: int) -> None:
        rng = np.random.default_rng(event.seed)
        self._event, self._size = event, size
        self._depth = float(rng.uniform(0.34, 0.5))
        self._phase = float(rng.uniform(0, 2 * np.pi))
        self._rgb = np.array([0.90, 0.95, 1.0], np.float32) * np.float32(rng.uniform(0.9, 1.05))

    def sprite(self, time_s: float, light: np.ndarray) -> Sprite | None:
        event, size = self._event, self._size
        push = fade(time_s, event.start_s, event.end_s, PUSH_S)
        if push <= 0:
            return None
        unit = size / 224
        reach = (push * self._depth + 0.02 * push * np.sin(2.1 * time_s + self._phase)) * 224  # to the tips of the jaws
        swing = event.angle + 0.05 * np.sin(1.3 * time_s + self._phase)
        cos, sin = float(np.cos(swing)), float(np.sin(swing))
        foot = (event.at[0] * size, event.at[1] * size)
        tip = (foot[0] + cos * reach * unit, foot[1] + sin * reach * unit)
        edge = 18 * unit
        patch = patch_around(
            size,
            (min(foot[0], tip[0]) - edge, max(foot[0], tip[0]) + edge),
            (min(foot[1], tip[1]) - edge, max(foot[1], tip[1]) + edge),
            foot,
        )
        if patch is None:
            return None
        far, side = (patch.x * cos + patch.y * sin) / unit, (patch.y * cos - patch.x * sin) / unit
        distance, grey = self._metal(far, side, reach, time_s)
        alpha = np.clip(0.5 - distance * unit, 0, 1).astype(np.float32)
        bright = 0.8 + 0.25 * light_at(light, tip[0] / size, tip[1] / size)
        is_thing = (alpha > 0.5) & (push >= 0.75)
        rgb = (grey[..., None] * self._rgb * bright).astype(np.float32)
        return Sprite(top=patch.top, left=patch.left, alpha=alpha, rgb=rgb, is_thing=is_thing)

    def _metal(self, far: np.ndarray, side: np.ndarray, reach: float, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance and brightness, in pixels of a 224-pixel frame along and across the shaft."""
        jaws = 30.0
        hinge = reach - jaws
        shaft = np.maximum(np.abs(side) - 8.5, far - hinge)
        part = np.clip((far - hinge) / jaws, 0, 1)
        opening = 4.5 + 2.5 * np.sin(3.0 * time_s + self._phase)
        jaw = np.abs(np.abs(side) - (2.0 + opening * np.sqrt(part) * 1.4)) - (5.4 - 2.8 * part)
        jaw = np.maximum(jaw, np.maximum(hinge - far, far - reach))
        grey = 0.30 + 0.55 * np.exp(-(((side + 3) / 3.2) ** 2))
        grey = np.where((far > hinge - 12) & (far < hinge - 4), 0.12, grey)
        return np.minimum(shaft, jaw), np.where(far > hinge, 0.62 + 0.25 * (np.abs(side) > 6), grey)


class Jet:
    """A cone of bright streaks from a nozzle, pulsing, with a splash where it meets the wall."""

    def __init__(self, event: Event, size: int) -> None:
        rng = np.random.default_rng(event.seed)
        self._event, self._size = event, size
        self._length = float(rng.uniform(70, 82))
        self._phase = float(rng.uniform(0, 2 * np.pi))
        self._drops = rng.uniform(0, 1, (24, 64)).astype(np.float32)

    def sprite(self, time_s: float, light: np.ndarray) -> Sprite | None:
        event, size = self._event, self._size
        opacity = fade(time_s, event.start_s, event.end_s, FADE_S)
        if opacity <= 0:
            return None
        unit, swing = size / 224, event.angle + 0.06 * np.sin(4.0 * time_s + self._phase)
        cos, sin = float(np.cos(swing)), float(np.sin(swing))
        centre, reach = (event.at[0] * size, event.at[1] * size), (self._length / 2 + 14) * unit
        patch = patch_around(
            size, (centre[0] - reach, centre[0] + reach), (centre[1] - reach, centre[1] + reach), centre
        )
        if patch is None:
            return None
        far = (patch.x * cos + patch.y * sin) / unit + self._length / 2
        side = (patch.y * cos - patch.x * sin) / unit
        width = 2.5 + 0.24 * np.clip(far, 0, None)
        across = side / width
        cone = (
            np.clip((1 - np.abs(across)) * 4, 0, 1) * np.clip(far / 3, 0, 1) * np.clip((self._length - far) / 6, 0, 1)
        )
        streaks = self._streaks(across, far, time_s)
        splash = np.exp(-(((far - self._length) / 7) ** 2) - (side / 17) ** 2)
        pulse = 0.82 + 0.18 * np.sin(2 * np.pi * 1.7 * time_s + self._phase)
        alpha = np.clip(cone * (0.35 + 0.6 * streaks) + 0.8 * splash * (0.6 + 0.4 * streaks), 0, 1) * pulse * opacity
        rgb = np.array([0.86, 0.97, 1.0], np.float32) * (0.92 + 0.2 * streaks)[..., None]
        is_thing = ((cone > 0.3) | (splash > 0.5)) & (opacity >= 0.5)
        return Sprite(
            top=patch.top,
            left=patch.left,
            alpha=alpha.astype(np.float32),
            rgb=rgb.astype(np.float32),
            is_thing=is_thing,
        )

    def _streaks(self, across: np.ndarray, far: np.ndarray, time_s: float) -> np.ndarray:
        """Drops that fly along the cone, from a random table that repeats."""
        lane = ((across * 0.5 + 0.5) * 11).astype(np.int32) % 24
        step = ((far - 150 * time_s) / 5).astype(np.int32) % 64
        drops: np.ndarray = self._drops[lane, step]
        return drops
