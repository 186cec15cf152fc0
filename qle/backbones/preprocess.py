"""How a picture becomes a model's input: geometry on uint8 (Pillow), then one multiply-add on the device.

    rgb uint8 (any size) --geometry--> uint8 (height, width, 3) --normalise--> float (..., 3, height, width)

The two halves run in different places: geometry in the decode processes, which never load torch, normalise beside the model.
Pillow does the resizing because the processors that come with published models do; the pixels are equal, not similar.
One `Preprocess` is part of every space: a video that comes later is treated by the same object, read back from the space.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from qle.errors import ConfigError
from qle.types import Box

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, UInt8

ResizeMode = Literal["squash", "shorter-crop", "letterbox"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DARK_LEVEL = 24
"""A pixel is black when no channel is above this. Encoders leave noise of 16-20 in borders that were black."""
BRIGHT_SHARE = 0.01
"""A row or column belongs to the picture when more than this share of its pixels is brighter than black."""
MIN_KEPT_SHARE = 0.5
"""A box smaller than this in either direction is taken for a dark scene, and nothing is cropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Everything between a decoded frame and the first layer."""

    height: int
    """Pixels that the model sees, e.g. 224."""
    width: int
    resize: ResizeMode = "squash"
    """squash: the whole picture, aspect ratio lost. shorter-crop: scale until it covers the target, cut the middle.
    letterbox: scale until it fits, black around."""
    resize_to: int | None = None
    """Only shorter-crop: pixels of the shorter side before the cut; None scales until the target is just covered."""
    interpolation: Interpolation = "bicubic"
    crop_borders: bool = False
    """Cut black borders first; the box is found once a video (`content_box`) and handed to `geometry`."""
    scale: float = 1 / 255
    """Multiplied into the uint8 values before mean and std."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "mean", tuple(float(value) for value in self.mean)
        )  # JSON and processors hand over lists
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if self.height < 1 or self.width < 1:
            raise ConfigError(f"preprocess: height and width must be positive, got {self.height} x {self.width}")
        if self.resize not in get_args(ResizeMode):
            raise ConfigError(f"preprocess: unknown resize {self.resize!r}: choose {', '.join(get_args(ResizeMode))}")
        if self.interpolation not in get_args(Interpolation):
            choices = ", ".join(get_args(Interpolation))
            raise ConfigError(f"preprocess: unknown interpolation {self.interpolation!r}: choose {choices}")
        if self.resize_to is not None and self.resize != "shorter-crop":
            raise ConfigError(f"preprocess: resize_to belongs to shorter-crop, got it with {self.resize}")
        if self.resize_to is not None and self.resize_to < max(self.height, self.width):
            raise ConfigError(
                f"preprocess: resize_to {self.resize_to} is smaller than the cut {self.height} x {self.width}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"preprocess: mean and std need three values, std above 0; got {self.mean}, {self.std}")

    @property
    def output_shape(self) -> tuple[int, int]:
        """(height, width) of what `geometry` returns."""
        return self.height, self.width

    def geometry(self, rgb: np.ndarray, box: Box | None = None) -> np.ndarray:
        """(height, width, 3) uint8, a new array, of one decoded frame; `box` is cut out first. The input is left as it is."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"geometry takes one uint8 frame (height, width, 3), got {rgb.dtype} {rgb.shape}")
        if box is not None:
            rgb = rgb[box.top : box.bottom, box.left : box.right]
        image = Image.fromarray(np.ascontiguousarray(rgb))
        if self.resize == "squash":
            return np.array(self._resized(image, self.height, self.width))
        if self.resize == "letterbox":
            return self._letterbox(image)
        return self._shorter_crop(image)

    def normalise(
        self, frames: "UInt8[torch.Tensor, '... height width 3']", dtype: "torch.dtype | None" = None
    ) -> "Float[torch.Tensor, '... 3 height width']":
        """Channels first (a view: colours still lie side by side in memory), scaled and centred on the device of `frames`;
        computed in float32, returned as `dtype`."""
        import torch  # decode workers use this file and must not pay for torch

        # Colours lie side by side, so mean and std are laid out as a whole pixel row: on a CPU that runs at memory speed,
        # where three separate colour planes take ten times as long.
        width = frames.shape[-2]
        factor = torch.tensor([self.scale / std for std in self.std], device=frames.device).repeat(width)
        offset = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=frames.device).repeat(
            width
        )
        pixels = torch.addcmul(offset, frames.flatten(-2).to(torch.float32), factor)
        pixels = pixels.reshape(frames.shape).movedim(-1, -3)
        return pixels if dtype is None else pixels.to(dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The object that `to_dict` was called on."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"preprocess: unknown entries {unknown}: written by a newer version? expected {sorted(known)}"
            )
        return cls(**values)

    def _resized(self, image: Image.Image, height: int, width: int) -> Image.Image:
        if image.size == (width, height):
            return image
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()])

    def _shorter_crop(self, image: Image.Image) -> np.ndarray:
        width, height = image.size
        if self.resize_to is None:  # just cover the target; for a square one this is the shorter side too
            goal, side = max((self.height, height), (self.width, width), key=lambda pair: pair[0] / pair[1])
        else:
            goal, side = self.resize_to, min(height, width)
        new_height, new_width = (
            int(goal * height / side),
            int(goal * width / side),
        )  # int, not round: as published processors
        top, left = (new_height - self.height) // 2, (new_width - self.width) // 2
        pixels = np.asarray(self._resized(image, new_height, new_width))
        return pixels[top : top + self.height, left : left + self.width].copy()

    def _letterbox(self, image: Image.Image) -> np.ndarray:
        width, height = image.size
        scale = min(self.height / height, self.width / width)
        new_height = min(self.height, max(1, round(height * scale)))
        new_width = min(self.width, max(1, round(width * scale)))
        top, left = (self.height - new_height) // 2, (self.width - new_width) // 2
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        canvas[top : top + new_height, left : left + new_width] = np.asarray(
            self._resized(image, new_height, new_width)
        )
        return canvas


def content_box(frames: Iterable[np.ndarray]) -> Box:
    """The picture without its black borders, judged over several uint8 frames (height, width, 3) of one video.

    Careful on purpose: a line stays if it is bright in any of the frames (a fade, a dark scene and a burnt-in caption cut
    nothing), and where less than MIN_KEPT_SHARE would remain the whole picture is returned.
    """
    brightest: np.ndarray | None = None
    for frame in frames:
        level = frame.max(axis=2)
        brightest = level if brightest is None else np.maximum(brightest, level)
    if brightest is None:
        raise ValueError("content_box needs at least one frame")
    height, width = brightest.shape
    is_bright = brightest > DARK_LEVEL
    rows = np.flatnonzero(is_bright.mean(axis=1) > BRIGHT_SHARE)
    cols = np.flatnonzero(is_bright.mean(axis=0) > BRIGHT_SHARE)
    whole = Box(top=0, bottom=height, left=0, right=width)
    if len(rows) == 0 or len(cols) == 0:
        return whole
    box = Box(top=int(rows[0]), bottom=int(rows[-1]) + 1, left=int(cols[0]), right=int(cols[-1]) + 1)
    is_plausible = box.bottom - box.top >= MIN_KEPT_SHARE * height and box.right - box.left >= MIN_KEPT_SHARE * width
    return box if is_plausible else whole
