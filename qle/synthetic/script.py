"""What happens in one made-up video, when and where: drawn from a seed before anything is rendered.

    SyntheticConfig, split, number -> Script of Events, one act after another until the video is full

Acts: one object; two objects at once (so that a colour must be bound to its object); a grasper, sometimes beside an object;
a water jet followed at once by an object; and what only resembles that: an object and then a jet, or a jet alone. Objects
may be there when the video begins or ends, so that neither is a hint.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from qle.errors import ConfigError
from qle.synthetic.vocabulary import HELD_OUT_PAIRS, SEEN_PAIRS, SIDES, Pair

SPLITS = ("train", "val", "test", "composition")
"""The splits that have videos of their own; paraphrase asks about the test videos."""

FOLLOWS_WITHIN_S = 1.0
"""An object that begins so soon after a jet has ended is "a water jet, then a ..."."""
APART_S = 2.2
"""Least time between a jet and an object that do not belong together: no case is on the edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """How many videos of which kind; the folder that holds them remembers it."""

    num_train: int = 48
    num_val: int = 8
    num_test: int = 12
    num_composition: int = 8
    seconds: float = 20.0
    """Length of each video."""
    fps: float = 8.0
    size: int = 224
    """Pixels of a side."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 2:
            raise ConfigError(f"size = {self.size}: expected an even number of pixels, 64 or more")
        if not 4 <= self.seconds <= 3600:
            raise ConfigError(f"seconds = {self.seconds}: expected 4 to 3600")
        if not 2 <= self.fps <= 60:
            raise ConfigError(f"fps = {self.fps}: expected 2 to 60")
        if self.seed < 0 or min(self.num_videos(split) for split in SPLITS) < 0:
            raise ConfigError("numbers of videos and the seed cannot be negative")

    def num_videos(self, split: str) -> int:
        counts = {
            "train": self.num_train,
            "val": self.num_val,
            "test": self.num_test,
            "composition": self.num_composition,
        }
        return counts[split]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that can be seen. Times may lie outside the video by a little: it is then cut."""

    kind: Literal["object", "grasper", "jet"]
    start_s: float
    end_s: float
    at: tuple[float, float]
    """x, y as fractions of the picture: middle of an object or a jet; where on the border a grasper enters."""
    angle: float
    """Radians: of an object's long side, of a jet's flow, of a grasper's shaft (already turned inwards)."""
    seed: int
    """Seed of shape, tint and movement."""
    colour: str = ""
    object: str = ""
    side: str = ""

    @property
    def pair(self) -> Pair:
        return self.colour, self.object


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One video before it is drawn."""

    split: str
    number: int
    seconds: float
    seed: int
    """Seed of walls, camera and distractors."""
    events: tuple[Event, ...]
    never_shown: frozenset[Pair]
    """Swapped pairs of two objects that are seen together: "blue polyp" beside a green polyp and a blue ring."""

    @property
    def key(self) -> str:
        """Path of the video below the folder of all videos."""
        return f"{self.split}/{self.number:03d}.mp4"


def write_script(config: SyntheticConfig, split: str, number: int) -> Script:
    """Equal arguments give equal scripts, whatever else is made."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), number])
    author = _Author(rng, config.seconds, is_composition=split == "composition")
    events = author.write()
    return Script(
        split=split,
        number=number,
        seconds=config.seconds,
        seed=int(rng.integers(2**31)),
        events=tuple(sorted(events, key=lambda event: event.start_s)),
        never_shown=frozenset(author.never_shown),
    )


ACTS = {
    "object": 0.33,
    "two": 0.22,
    "grasper": 0.15,
    "grasper+object": 0.05,
    "sequence": 0.17,
    "reverse": 0.05,
    "jet": 0.03,
}
COMPOSITION_ACTS = {"object": 0.5, "two": 0.35, "grasper": 0.1, "grasper+object": 0.05}


class _Author:
    """Fills the time of one video with acts."""

    def __init__(self, rng: np.random.Generator, seconds: float, *, is_composition: bool) -> None:
        self._rng, self._seconds, self._is_composition = rng, seconds, is_composition
        self._shown: list[Pair] = []
        self._jet_end_s = -np.inf
        self._object_end_s = -np.inf
        self.never_shown: set[Pair] = set()

    def write(self) -> list[Event]:
        events: list[Event] = []
        acts = COMPOSITION_ACTS if self._is_composition else ACTS
        names, odds = list(acts), np.array(list(acts.values()))
        now_s = float(self._rng.uniform(-2.2, 0.9))  # in the middle of something, or in a gap before it
        while now_s < self._seconds - 1.2:
            act = str(self._rng.choice(names, p=odds / odds.sum()))
            is_cut = now_s < 0.2 or now_s > self._seconds - (7.5 if act in ("sequence", "reverse") else 4.5)
            if is_cut and act not in ("object", "two"):
                act = "object"  # entering, leaving and order must be seen; a thing is there or not
            events += self._act(act, now_s)
            now_s = max(event.end_s for event in events) + float(self._rng.uniform(0.3, 1.1))
        return [event for event in events if event.end_s > 0.8 and event.start_s < self._seconds - 0.8]

    def _act(self, act: str, now_s: float) -> list[Event]:
        rng = self._rng
        if act == "jet":
            return [self._jet(max(now_s, self._object_end_s + APART_S))]
        if act == "sequence":
            jet = self._jet(now_s, longest_s=2.4)
            return [jet, self._object(jet.end_s + rng.uniform(0.1, 0.6), longest_s=3.6)]
        if now_s < self._jet_end_s + APART_S and act != "grasper":
            now_s = self._jet_end_s + APART_S
        if act == "reverse":
            shown = self._object(now_s, longest_s=3.0)
            return [shown, self._jet(shown.end_s + rng.uniform(0.1, 0.6), longest_s=2.4)]
        if act == "two":
            return self._two(now_s)
        if act == "object":
            return [self._object(now_s)]
        grasper = self._grasper(now_s)
        if act == "grasper":
            return [grasper]
        return [grasper, self._object(now_s + rng.uniform(0, 0.6), apart_from=grasper)]

    def _two(self, now_s: float) -> list[Event]:
        """A green polyp and a blue ring: then there is no blue polyp and no green ring in the whole video."""
        first = self._object(now_s)
        if not self._bindable(first):
            return [first]
        start_s = max(now_s + float(self._rng.uniform(-0.4, 1.0)), self._jet_end_s + APART_S)
        second = self._object(start_s, apart_from=first)
        self.never_shown |= _swaps(first.pair, second.pair)
        return [first, second]

    def _object(self, now_s: float, *, longest_s: float = 5.0, apart_from: Event | None = None) -> Event:
        rng = self._rng
        colour, name = self._pair(apart_from)
        self._shown.append((colour, name))
        event = Event(
            kind="object", start_s=_round(now_s), end_s=_round(now_s + rng.uniform(2.2, longest_s)),
            at=self._position(apart_from), angle=float(rng.uniform(0, 2 * np.pi)), seed=int(rng.integers(2**31)),
            colour=colour, object=name,
        )  # fmt: skip
        self._object_end_s = max(self._object_end_s, event.end_s)
        return event

    def _pair(self, beside: Event | None) -> Pair:
        """Mostly one that this video has not shown."""
        if beside is not None and beside.kind == "object":
            pairs = self._bindable(beside)
        else:
            is_held_out = self._is_composition and self._rng.random() < 0.55
            choices = HELD_OUT_PAIRS if is_held_out else SEEN_PAIRS
            pairs = [pair for pair in choices if pair not in self.never_shown] or self._shown
        fresh = [pair for pair in pairs if pair not in self._shown]
        pairs = fresh if fresh and self._rng.random() < 0.9 else pairs
        return pairs[int(self._rng.integers(len(pairs)))]

    def _bindable(self, beside: Event) -> list[Pair]:
        """Pairs that share no word with an object and whose swap with it this video has not shown."""
        return [
            pair
            for pair in SEEN_PAIRS + (HELD_OUT_PAIRS if self._is_composition else ())
            if pair not in self.never_shown
            and pair[0] != beside.colour
            and pair[1] != beside.object
            and not _swaps(pair, beside.pair) & set(self._shown)
        ]

    def _position(self, apart_from: Event | None) -> tuple[float, float]:
        """Anywhere in the picture, up to its borders, but not upon what is there at the same time."""
        at = (0.5, 0.5)
        for _ in range(100):
            at = (float(self._rng.uniform(0.06, 0.94)), float(self._rng.uniform(0.06, 0.94)))
            if apart_from is None or _distance(at, apart_from) > 0.36:
                break
        return at

    def _grasper(self, now_s: float) -> Event:
        rng = self._rng
        side = SIDES[int(rng.integers(4))]
        along = float(rng.uniform(0.12, 0.88))
        at = {"left": (0.0, along), "right": (1.0, along), "top": (along, 0.0), "bottom": (along, 1.0)}[side]
        inwards = {"left": 0.0, "right": np.pi, "top": np.pi / 2, "bottom": -np.pi / 2}[side]
        # Leaning towards the middle, so that an instrument near a corner does not leave the picture again.
        lean = rng.uniform(-0.1, 0.4) * (1 if side in ("left", "bottom") else -1) * (1 if along < 0.5 else -1)
        return Event(
            kind="grasper", start_s=_round(now_s), end_s=_round(now_s + rng.uniform(2.4, 4.2)), at=at,
            angle=float(inwards + lean), seed=int(rng.integers(2**31)), side=side,
        )  # fmt: skip

    def _jet(self, now_s: float, *, longest_s: float = 3.2) -> Event:
        rng = self._rng
        event = Event(
            kind="jet", start_s=_round(now_s), end_s=_round(now_s + rng.uniform(1.5, longest_s)),
            at=(float(rng.uniform(0.10, 0.90)), float(rng.uniform(0.10, 0.90))),
            angle=float(rng.uniform(0, 2 * np.pi)), seed=int(rng.integers(2**31)),
        )  # fmt: skip
        self._jet_end_s = event.end_s
        return event


def _distance(at: tuple[float, float], event: Event) -> float:
    """From a place to an event, which for a grasper is its whole shaft."""
    if event.kind != "grasper":
        return float(np.hypot(at[0] - event.at[0], at[1] - event.at[1]))
    steps = np.linspace(0, 0.66, 12)
    return float(
        np.hypot(
            event.at[0] + steps * np.cos(event.angle) - at[0], event.at[1] + steps * np.sin(event.angle) - at[1]
        ).min()
    )


def _swaps(first: Pair, second: Pair) -> set[Pair]:
    return {(first[0], second[1]), (second[0], first[1])}


def _round(time_s: float) -> float:
    return round(float(time_s), 2)
