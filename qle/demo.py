"""Something to look at without any data: short synthetic endoscopy-like videos with known events, and a picture of tokens.

    make_videos -> mp4 files and what is planted in them when
    token_picture -> one PNG: frames above, their patch tokens as colours below

The camera drifts through a reddish tube with a dark lumen, folds, vessels and a light that falls off; a polyp appears on the
wall, or an instrument comes in from the corner. Drawn with numpy, equal seeds give equal pictures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qle.cache.colours import TokenColours
from qle.cache.reader import open_cache
from qle.extract.decode import make_decoder, request_frames
from qle.extract.decode_probe import probe
from qle.extract.decode_write import write_video

WIDTH, HEIGHT, FPS = 320, 240, 25
EVENTS = ("polyp", "instrument")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedEvent:
    """Something that can be seen in a made-up video from `start_s` to `end_s`."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoVideo:
    """A made-up video and the truth about it."""

    path: Path
    events: tuple[PlantedEvent, ...]


def make_videos(folder: Path, num_videos: int = 4, seconds: float = 12.0, seed: int = 0) -> list[DemoVideo]:
    """Writes demo_000.mp4, ...; each has one or two events, none of them at its very beginning or end."""
    folder.mkdir(parents=True, exist_ok=True)
    videos = []
    for number in range(num_videos):
        rng = np.random.default_rng([seed, number])
        events = _plant(rng, number, seconds)
        path = folder / f"demo_{number:03d}.mp4"
        write_video(path, _Scene(rng, events).frames(max(1, round(seconds * FPS))), FPS)
        videos.append(DemoVideo(path=path, events=events))
    return videos


def _plant(rng: np.random.Generator, number: int, seconds: float) -> tuple[PlantedEvent, ...]:
    """The first event alternates between videos; every second video has the other one too, in its second half."""
    names = [EVENTS[number % 2]] + ([EVENTS[1 - number % 2]] if number % 4 >= 2 else [])
    share = seconds / len(names)
    events = []
    for place, name in enumerate(names):
        start_s = (place + rng.uniform(0.15, 0.35)) * share
        end_s = start_s + rng.uniform(0.35, 0.5) * share
        events.append(PlantedEvent(name=name, start_s=round(start_s, 2), end_s=round(end_s, 2)))
    return tuple(events)


class _Scene:
    """One video: a tube, its camera path and its events."""

    def __init__(self, rng: np.random.Generator, events: Sequence[PlantedEvent]) -> None:
        self._rng, self._events = rng, events
        self._y, self._x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        self._phases = [float(phase) for phase in rng.uniform(0, 2 * np.pi, 8)]
        self._noise = rng.normal(0, 0.012, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32)
        self._wall = rng.uniform([0.72, 0.34, 0.28], [0.92, 0.46, 0.38]).astype(np.float32)
        self._polyp_angle = rng.uniform(0, 2 * np.pi)
        self._from_left = bool(rng.integers(2))

    def frames(self, count: int) -> Iterator[np.ndarray]:
        for number in range(count):
            yield self._frame(number / FPS)

    def _frame(self, time_s: float) -> np.ndarray:
        p = self._phases
        centre_x = WIDTH * (0.5 + 0.16 * np.sin(0.50 * time_s + p[0]) + 0.04 * np.sin(1.7 * time_s + p[1]))
        centre_y = HEIGHT * (0.5 + 0.16 * np.sin(0.43 * time_s + p[2]) + 0.04 * np.sin(1.9 * time_s + p[3]))
        picture = self._tube(time_s, float(centre_x), float(centre_y))
        for event in self._events:
            # Comes and goes within half a second at the ends of its interval.
            presence = min((time_s - event.start_s) / 0.5, (event.end_s - time_s) / 0.5, 1.0)
            if presence > 0:
                draw = self._polyp if event.name == "polyp" else self._instrument
                draw(picture, time_s, (centre_x, centre_y), presence)
        top, left = self._rng.integers(64, size=2)
        picture += self._noise[top : top + HEIGHT, left : left + WIDTH]  # another cut each time is as good as new noise
        rgb: np.ndarray = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
        return rgb

    def _tube(self, time_s: float, centre_x: float, centre_y: float) -> np.ndarray:
        """Drawn at half size and enlarged: it is smooth, and most of the time goes here."""
        p = self._phases
        dx, dy = (self._x[::2, ::2] - centre_x) / HEIGHT, (self._y[::2, ::2] - centre_y) / HEIGHT
        angle = np.arctan2(dy, dx)
        radius = np.hypot(dx, dy) * (1 + 0.08 * np.sin(3 * angle + p[4] + 0.3 * time_s))
        depth = 0.22 / (radius + 0.05)  # how far along the tube the eye meets its wall
        folds = 0.5 + 0.5 * np.sin(7 * depth - 2.2 * time_s + 0.8 * np.sin(2 * angle + p[5]))
        light = np.clip(1.25 / (1 + 1.1 * depth**1.6), 0, 1) * (0.72 + 0.28 * folds)
        vessels = np.abs(np.sin(5 * angle + 2 * np.sin(2.5 * depth - 0.8 * time_s + p[6])))
        vein = np.clip(1 - vessels * 9, 0, 1) * np.clip(radius * 2.2 - 0.3, 0, 1)
        colour = self._wall * (1 - 0.35 * vein[..., None] * np.array([0.5, 1, 1], np.float32))
        glints = np.clip((folds - 0.97) * 30, 0, 1) * np.clip(np.sin(9 * angle + p[7] + time_s) - 0.9, 0, 1) * 6
        small = np.clip((colour + glints[..., None]) * light[..., None], 0, 1)
        picture = Image.fromarray((small * 255).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        return np.asarray(picture, dtype=np.float32) / 255

    def _polyp(self, picture: np.ndarray, time_s: float, centre: tuple[float, float], presence: float) -> None:
        """A smooth pale dome on the wall, lit from the camera."""
        reach = 72 + 6 * np.sin(0.9 * time_s)
        at_x = centre[0] + reach * np.cos(self._polyp_angle + 0.05 * time_s)
        at_y = centre[1] + 0.8 * reach * np.sin(self._polyp_angle + 0.05 * time_s)
        size = 38 * (0.5 + 0.5 * presence)
        distance = np.hypot(self._x - at_x, (self._y - at_y) * 1.15) / size
        dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
        edge = np.clip((1 - distance) * 8, 0, 1)[..., None] * presence
        shade = (0.45 + 0.6 * dome)[..., None] * np.array([0.95, 0.72, 0.50], np.float32)
        shine = np.exp(-(((self._x - at_x + 9) / 7) ** 2) - ((self._y - at_y + 11) / 5) ** 2)[..., None]
        picture += edge * (shade + 0.6 * shine - picture)

    def _instrument(self, picture: np.ndarray, time_s: float, centre: tuple[float, float], presence: float) -> None:
        """A grey metal shaft with a dark ring and a bright tip, pushed in from a lower corner."""
        start = np.array([-20.0 if self._from_left else WIDTH + 20.0, HEIGHT + 20.0])
        aim = np.array([centre[0] + 18 * np.sin(1.3 * time_s), centre[1] + 12 * np.cos(1.7 * time_s)])
        along = (aim - start) / np.linalg.norm(aim - start)
        length = presence * 0.82 * np.linalg.norm(aim - start)
        far = (self._x - start[0]) * along[0] + (self._y - start[1]) * along[1]
        side = (self._x - start[0]) * along[1] - (self._y - start[1]) * along[0]
        width = np.where(far > length - 26, 11 * np.clip((length - far) / 26, 0, 1) ** 0.6, 13)
        inside = (np.clip(width - np.abs(side), 0, 1) * (far < length))[..., None]
        ring = ((far > length - 44) & (far < length - 34)) * 0.35
        grey = 0.42 + 0.45 * np.exp(-(((side + 4) / 5) ** 2)) - ring
        picture += inside * (grey[..., None] * np.array([0.92, 0.97, 1.0], np.float32) - picture)


def draw_tokens(path: Path, cache: Path) -> Path:
    """The picture for the first video of a cache that `make_videos` was extracted into."""
    space = open_cache(cache).space()
    video = space.video(next(iter(space)))
    return token_picture(path, Path(video.record.source.path), video.patch[:], video.pts, video.index)


def token_picture(
    path: Path, video: Path, patch: np.ndarray, pts_s: np.ndarray, frame_index: np.ndarray, num_times: int = 6
) -> Path:
    """Frames of a video and, below each, its patch map as colours. `patch` is (rows of the cache, rows, cols, dim)."""
    rows = np.unique(np.linspace(0, len(patch) - 1, min(num_times, len(patch))).round().astype(int))
    maps = TokenColours.fit(np.asarray(patch)).apply(np.asarray(patch)[rows])
    frames = _decode(video, frame_index[rows])
    height, width = 180, round(180 * frames[0].shape[1] / frames[0].shape[0])
    margin, caption = 6, 22
    sheet = Image.new("RGB", (margin + len(rows) * (width + margin), 2 * (height + margin) + caption), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (row, rgb, tokens) in enumerate(zip(rows, frames, maps, strict=True)):
        left = margin + place * (width + margin)
        draw.text((left, 3), f"{pts_s[row]:.1f} s", fill="black", font=ImageFont.load_default(14))
        sheet.paste(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR), (left, caption))
        tiles = Image.fromarray(tokens).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tiles, (left, caption + height + margin))
    sheet.save(path)
    return path


def _decode(video: Path, numbers: np.ndarray) -> list[np.ndarray]:
    """Frames by their numbers in display order; equal numbers give the same frame."""
    request = request_frames(probe(video), numbers)
    found = dict(make_decoder("pyav").frames(request))
    return [found[int(number)] for number in numbers]
