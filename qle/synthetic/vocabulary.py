"""What can be asked about a made-up video, and in which words.

    Concept -> key ("green polyp") and wordings: those that training sees, and others that only the paraphrase split uses

A concept is what annotations share that mean the same. Five pairs of a colour and an object are held out: they are neither
shown nor asked outside the composition split, though each of their words is known from other pairs.
"""

from dataclasses import dataclass
from typing import Literal

COLOURS = ("green", "blue", "yellow", "white", "purple")
OBJECTS = ("polyp", "ring", "clip", "capsule")
SIDES = ("left", "right", "top", "bottom")

Pair = tuple[str, str]

ALL_PAIRS: tuple[Pair, ...] = tuple((colour, name) for colour in COLOURS for name in OBJECTS)
HELD_OUT_PAIRS: tuple[Pair, ...] = (
    ("green", "capsule"),
    ("blue", "clip"),
    ("yellow", "polyp"),
    ("white", "ring"),
    ("purple", "ring"),
)
"""Every colour once and every object: no word is new in the composition split, only how two of them go together."""
SEEN_PAIRS: tuple[Pair, ...] = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT_PAIRS)

Family = Literal["pair", "grasper", "jet", "sequence"]

TRAINING_WORDS: dict[Family, tuple[str, ...]] = {
    "pair": (
        "a {colour} {object}",
        "the {colour} {object}",
        "there is a {colour} {object}",
        "a {object} that is {colour}",
        "a {colour} {object} is visible",
        "a {colour} {object} on the wall",
    ),
    "grasper": (
        "the grasper enters from the {side}",
        "a grasper comes in from the {side}",
        "a grasper is pushed in from the {side}",
        "the grasper comes from the {side} side",
    ),
    "jet": ("a water jet", "the water jet is on", "there is a water jet", "a jet of water"),
    "sequence": (
        "a water jet, then a {object}",
        "first a water jet, then a {object}",
        "a water jet followed by a {object}",
        "a {object} after a water jet",
    ),
}
UNSEEN_WORDS: dict[Family, tuple[str, ...]] = {
    "pair": (
        "the camera shows a {object} of {colour} colour",
        "one can see a {colour}-coloured {object}",
        "a {object} appears and its colour is {colour}",
        "somewhere in the picture sits a {colour} {object}",
    ),
    "grasper": (
        "forceps come into view from the {side}",
        "from the {side}, a grasper moves into the picture",
        "the forceps are inserted from the {side} side",
    ),
    "jet": ("a spray of water", "water sprays across the view", "one can see water being sprayed"),
    "sequence": (
        "a {object} shows up right after a spray of water",
        "water is sprayed and next a {object} appears",
        "following a jet of water, a {object} is seen",
    ),
}


@dataclass(frozen=True, slots=True)
class Concept:
    """One meaning. Which fields are filled depends on the family."""

    family: Family
    colour: str = ""
    object: str = ""
    side: str = ""

    @property
    def key(self) -> str:
        """The same for all wordings, e.g. "green polyp", "grasper from the left", "water jet, then polyp"."""
        if self.family == "pair":
            return f"{self.colour} {self.object}"
        if self.family == "grasper":
            return f"grasper from the {self.side}"
        return "water jet" if self.family == "jet" else f"water jet, then {self.object}"

    @property
    def slug(self) -> str:
        """The key in letters that any file format takes, e.g. "water_jet_then_polyp"."""
        return self.key.replace(",", "").replace(" ", "_")

    @property
    def pair(self) -> Pair:
        return self.colour, self.object

    def wordings(self, *, is_unseen: bool = False) -> tuple[str, ...]:
        templates = (UNSEEN_WORDS if is_unseen else TRAINING_WORDS)[self.family]
        return tuple(words.format(colour=self.colour, object=self.object, side=self.side) for words in templates)


def pair_concept(pair: Pair) -> Concept:
    return Concept("pair", colour=pair[0], object=pair[1])


JET = Concept("jet")
