"""What passes between camera and wall and means nothing: smoke that drifts by, bubbles that rise.

Both come and go independently of what is asked about, so that neither tells when something happens.
"""

import numpy as np
from PIL import Image

from qle.synthetic.sprites import Sprite, fade, paste, patch_around

SMOKE_RGB = np.array([0.80, 0.79, 0.78], np.float32)
TEXTURE = 96
"""Side of the smoke's texture, of which two thirds are seen at a time."""


class Distractors:
    """Those of one video."""

    def __init__(self, seed: int, size: int, seconds: float) -> None:
        rng = np.random.default_rng([seed, 3])
        self._size = size
        self._smoke = _clouds(rng)
        self._smoke_start_s = float(rng.uniform(-2, seconds))
        self._smoke_s = float(rng.uniform(3, 7))
        self._smoke_depth = float(rng.uniform(0.25, 0.5))
        count = int(rng.poisson(seconds / 3.0))
        self._bubbles = rng.uniform(0, 1, (count, 5))
        self._bubble_starts_s = rng.uniform(-1, seconds, count)

    def draw(self, picture: np.ndarray, time_s: float) -> None:
        for number, start_s in enumerate(self._bubble_starts_s):
            if start_s < time_s < start_s + 3:
                self._bubble(picture, time_s - start_s, self._bubbles[number])
        strength = fade(time_s, self._smoke_start_s, self._smoke_start_s + self._smoke_s, 1.2) * self._smoke_depth
        if strength > 0:
            self._veil(picture, time_s - self._smoke_start_s, strength)

    def _bubble(self, picture: np.ndarray, age_s: float, facts: np.ndarray) -> None:
        x, y, radius, sway, rise = (float(fact) for fact in facts)
        unit = self._size / 224
        radius_px = (3.5 + 4.5 * radius) * unit
        at = (
            (x + 0.02 * np.sin(3 * age_s + 6 * sway)) * self._size,
            (y - (0.04 + 0.08 * rise) * age_s) * self._size,
        )
        edge = radius_px + 2
        patch = patch_around(self._size, (at[0] - edge, at[0] + edge), (at[1] - edge, at[1] + edge), at)
        if patch is None:
            return
        distance = np.hypot(patch.x, patch.y)
        rim = np.clip(1 - np.abs(distance - radius_px) / (1.1 * unit), 0, 1)
        shine = np.exp(-((patch.x + radius_px / 3) ** 2 + (patch.y + radius_px / 3) ** 2) / (3 * unit**2))
        alpha = np.clip(0.55 * rim + 0.7 * shine, 0, 1).astype(np.float32) * np.float32(fade(age_s, 0, 3, 0.3))
        rgb = np.full((*alpha.shape, 3), 0.95, np.float32)
        paste(picture, Sprite(top=patch.top, left=patch.left, alpha=alpha, rgb=rgb, is_thing=alpha > 1))

    def _veil(self, picture: np.ndarray, age_s: float, strength: float) -> None:
        left = 4 + min(3.5 * age_s, 26)
        cut = self._smoke.resize(
            (self._size, self._size), Image.Resampling.BILINEAR, box=(left, 16, left + 64, 80)
        )  # fmt: skip
        alpha = np.asarray(cut)[..., None] * np.float32(strength / 255)
        picture += alpha * (SMOKE_RGB - picture)


def _clouds(rng: np.random.Generator) -> Image.Image:
    """Smooth noise of three sizes, as 8-bit opacity."""
    total = np.zeros((TEXTURE, TEXTURE), np.float32)
    for cells, weight in ((4, 1.0), (8, 0.6), (16, 0.3)):
        noise = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        total += weight * np.asarray(noise.resize((TEXTURE, TEXTURE), Image.Resampling.BICUBIC), np.float32)
    total -= total.min()
    return Image.fromarray((total * (255 / max(float(total.max()), 1e-6))).astype(np.uint8))
