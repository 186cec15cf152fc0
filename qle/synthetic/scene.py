"""The place: a reddish tube with a dark moving lumen, folds, vessels, blood on the wall, a light that falls off, glints.

    seed -> Scene.background(time): picture (size, size, 3) float32 and the brightness of the wall

It is smooth, so it is drawn at a third of the size and enlarged; only the glints are drawn at full size.
"""

import numpy as np
from PIL import Image

from qle.synthetic.sprites import Sprite, paste, patch_around

SHRINK = 3
NUM_GLINTS = 7


class Scene:
    """Walls and camera of one video; every picture is a pure function of the time."""

    def __init__(self, seed: int, size: int, seconds: float) -> None:
        rng = np.random.default_rng([seed, 2])
        self._size = size
        small = max(size // SHRINK, 24)
        axis = (np.arange(small, dtype=np.float32) + 0.5) / small
        self._x, self._y = axis[None, :], axis[:, None]
        self._phases = rng.uniform(0, 2 * np.pi, 10)
        self._speeds = rng.uniform(0.8, 1.25, 4)
        self._wall = rng.uniform([0.74, 0.36, 0.28], [0.92, 0.48, 0.38]).astype(np.float32)
        self._glints = rng.uniform(0, 1, (NUM_GLINTS, 4))
        self._blood = _streaks(rng, small)
        self._blood_times_s = rng.uniform(-0.2 * seconds, seconds, 2)
        self._blood_s = min(6.0, seconds / 3)

    def drift(self, time_s: float) -> tuple[float, float]:
        """How far the camera has moved, in fractions of the picture; things on the wall move along."""
        p, v = self._phases, self._speeds
        x = 0.045 * np.sin(0.9 * v[0] * time_s + p[0]) + 0.012 * np.sin(2.3 * v[1] * time_s + p[1])
        y = 0.045 * np.sin(0.8 * v[2] * time_s + p[2]) + 0.012 * np.sin(2.6 * v[3] * time_s + p[3])
        return float(x), float(y)

    def background(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        small, light = self._tube(time_s)
        self._stain(small, time_s)
        size = (self._size, self._size)
        enlarged = Image.fromarray(_bytes(small)).resize(size, Image.Resampling.BILINEAR)
        picture = np.multiply(np.asarray(enlarged), np.float32(1 / 255), dtype=np.float32)
        self._glitter(picture, time_s)
        return picture, light

    def _tube(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        p = self._phases
        drift_x, drift_y = self.drift(time_s)
        centre_x = 0.5 + 2.2 * drift_x + 0.12 * np.sin(0.21 * time_s + p[8])
        centre_y = 0.5 + 2.2 * drift_y + 0.12 * np.sin(0.19 * time_s + p[9])
        dx, dy = self._x - np.float32(centre_x), self._y - np.float32(centre_y)
        angle = np.arctan2(dy, dx)
        radius = np.hypot(dx, dy) * (1 + 0.08 * np.sin(3 * angle + np.float32(p[4] + 0.3 * time_s)))
        depth = 0.20 / (radius + 0.05)  # how far along the tube the eye meets its wall
        wave = 7 * depth + 0.8 * np.sin(2 * angle + np.float32(p[5])) - np.float32(1.6 * time_s)
        folds = 0.5 + 0.5 * np.sin(wave)
        light = np.minimum(1.25 / (1 + 1.1 * depth * np.sqrt(depth)), 1) * (0.76 + 0.24 * folds)
        vessels = np.abs(np.sin(5 * angle + 2 * np.sin(2.5 * depth + np.float32(p[6] - 0.5 * time_s))))
        vein = np.clip(1 - vessels * 9, 0, 1) * np.clip(radius * 2.2 - 0.3, 0, 1)
        glow = (
            np.clip((folds - 0.97) * 30, 0, 1) * np.clip(np.sin(9 * angle + np.float32(p[7] + time_s)) - 0.9, 0, 1) * 4
        )
        picture = np.empty((*light.shape, 3), np.float32)
        for channel, redness in enumerate((0.5, 1.0, 1.0)):
            colour = self._wall[channel] * (1 - np.float32(0.35 * redness) * vein)
            picture[..., channel] = (colour + glow) * light
        return picture, light

    def _stain(self, small: np.ndarray, time_s: float) -> None:
        """Blood that runs down the wall for some seconds. It means nothing."""
        for streak, start_s in zip(self._blood, self._blood_times_s, strict=True):
            share = (time_s - start_s) / self._blood_s
            if 0 < share < 1:
                fallen = int(share * 0.35 * len(streak))
                alpha = np.roll(streak, fallen, axis=0)[..., None] * np.float32(min(1.0, 5 * share, 5 * (1 - share)))
                small += alpha * (np.array([0.34, 0.03, 0.04], np.float32) - small)

    def _glitter(self, picture: np.ndarray, time_s: float) -> None:
        """Wet spots that flash where the wall faces the light."""
        drift_x, drift_y = self.drift(time_s)
        unit = self._size / 224
        for x, y, phase, rate in self._glints:
            strength = np.sin((0.8 + rate) * time_s * 2 + phase * 20) * 1.6 - 0.5
            if strength <= 0:
                continue
            at = ((x + drift_x) % 1 * self._size, (y + drift_y) % 1 * self._size)
            patch = patch_around(
                self._size, (at[0] - 7 * unit, at[0] + 7 * unit), (at[1] - 5 * unit, at[1] + 5 * unit), at
            )
            if patch is None:
                continue
            spot = np.exp(-((patch.x / (3.0 * unit)) ** 2) - (patch.y / (1.8 * unit)) ** 2) * np.float32(
                min(strength, 0.9)
            )
            rgb = np.ones((*spot.shape, 3), np.float32)
            paste(picture, Sprite(top=patch.top, left=patch.left, alpha=spot, rgb=rgb, is_thing=spot > 1))


def _streaks(rng: np.random.Generator, small: int) -> list[np.ndarray]:
    """Opacity of two narrow wavy streaks, each where nobody knows."""
    x, y = np.meshgrid(np.arange(small) / small, np.arange(small) / small)
    streaks = []
    for _ in range(2):
        at, top, phase = rng.uniform(0.1, 0.9), rng.uniform(-0.1, 0.6), rng.uniform(0, 2 * np.pi)
        line = at + 0.04 * np.sin(7 * y + phase) + 0.02 * np.sin(17 * y + 2 * phase)
        width = 0.012 + 0.018 * np.clip((y - top) / 0.4, 0, 1)
        alpha = (
            np.clip(1.3 - np.abs(x - line) / width, 0, 1)
            * np.clip((y - top) * 12, 0, 1)
            * np.clip((top + 0.42 - y) * 14, 0, 1)
        )
        streaks.append((0.8 * alpha).astype(np.float32))
    return streaks


def _bytes(picture: np.ndarray) -> np.ndarray:
    rgb: np.ndarray = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return rgb
