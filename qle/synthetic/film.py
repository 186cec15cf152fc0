"""A script drawn: its frames, and where its events can be seen in them.

    Film(script, config).frames() -> (size, size, 3) uint8, one a frame;  .seen(event, time) -> (size, size) bool

Masks come from the same geometry as the pictures, without drawing the rest. Smoke does not hide a thing.
"""

from collections.abc import Iterator

import numpy as np

from qle.synthetic.distractors import Distractors
from qle.synthetic.motions import Grasper, Jet
from qle.synthetic.scene import Scene
from qle.synthetic.script import Event, Script, SyntheticConfig
from qle.synthetic.sprites import Actor, paste
from qle.synthetic.things import Thing

_LAYERS = {"object": 0, "jet": 1, "grasper": 2}
_UNLIT = np.ones((1, 1), np.float32)


class Film:
    """One video. Equal scripts and settings give equal bytes."""

    def __init__(self, script: Script, config: SyntheticConfig) -> None:
        self._size, self._fps = config.size, config.fps
        self.num_frames = round(script.seconds * config.fps)
        self._scene = Scene(script.seed, config.size, script.seconds)
        self._distractors = Distractors(script.seed, config.size, script.seconds)
        self._actors: dict[Event, Actor] = {
            event: self._actor(event) for event in sorted(script.events, key=lambda event: _LAYERS[event.kind])
        }
        rng = np.random.default_rng([script.seed, 4])
        self._noise = rng.normal(0, 0.011, (config.size + 32, config.size + 32, 3)).astype(np.float32)
        self._noise_at = rng.integers(32, size=(self.num_frames, 2))

    def _actor(self, event: Event) -> Actor:
        if event.kind == "object":
            return Thing(event, self._scene.drift, self._size)
        return Grasper(event, self._size) if event.kind == "grasper" else Jet(event, self._size)

    def frames(self) -> Iterator[np.ndarray]:
        for number in range(self.num_frames):
            yield self.frame(number)

    def frame(self, number: int) -> np.ndarray:
        time_s = number / self._fps
        picture, light = self._scene.background(time_s)
        for event, actor in self._actors.items():
            if event.start_s < time_s < event.end_s:
                sprite = actor.sprite(time_s, light)
                if sprite is not None:
                    paste(picture, sprite)
        self._distractors.draw(picture, time_s)
        top, left = self._noise_at[number]
        picture += self._noise[top : top + self._size, left : left + self._size]  # another cut is as good as new noise
        np.clip(picture, 0, 1, out=picture)
        picture *= 255
        rgb: np.ndarray = picture.astype(np.uint8)
        return rgb

    def seen(self, event: Event, time_s: float) -> np.ndarray:
        """Which pixels are the thing; none while it fades in or out."""
        mask = np.zeros((self._size, self._size), bool)
        sprite = self._actors[event].sprite(time_s, _UNLIT)
        if sprite is not None:
            height, width = sprite.is_thing.shape
            mask[sprite.top : sprite.top + height, sprite.left : sprite.left + width] = sprite.is_thing
        return mask
