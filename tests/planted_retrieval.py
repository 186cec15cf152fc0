"""A small cache of videos that words tell apart: a colour is seen in some frames, a thing in others.

    planted_retrieval -> cache with the real writer, train.jsonl and val.jsonl, captions without times

Validation videos show pairs of colour and thing that training never had together.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qle.cache.spaces import create_space
from qle.data.annotations import Annotation, write_annotations
from qle.types import SpaceSpec, Stream
from tests.tiny_cache import commit_rows

COLOURS = ("red", "green", "blue", "white")
THINGS = ("clip", "hook", "needle", "bag")
DIM = 16
SMALL_HEAD = ("head.dim=32", "head.num_frames=4", "head.trials=4", "head.dropout=0.0", "text.dim=32")
VAL = [(place, (place + shift) % 4) for shift in (0, 1) for place in range(4)]


@dataclass(frozen=True, kw_only=True)
class PlantedRetrieval:
    """Where things are."""

    cache: Path
    train: Path
    val: Path

    def arguments(self, out: Path, *settings: str) -> list[str]:
        """Of `qle train-heads`, with the smallest head."""
        line = ["--cache", self.cache, "--annotations", self.train, "--val", self.val, "--out", out, "--device", "cpu"]
        assignments = [part for setting in (*SMALL_HEAD, *settings) for part in ("--set", setting)]
        return ["--head", "tmass", *map(str, line), *assignments]


def retrieval_spec(name: str = "frames") -> SpaceSpec:
    return SpaceSpec(
        name=name,
        hashed={"backbone": {"id": name}, "sampling": {"fps": 1.0}},
        streams=(Stream(name="frame", row_shape=(DIM,), axes=("dim",), dtype="float16"),),
        recorded={},
    )


def planted_retrieval(root: Path) -> PlantedRetrieval:
    """24 training videos of 8 pairs, three of each, so that a text is true of several; 8 validation videos of the others."""
    space = create_space(root / "cache", retrieval_spec())
    directions = np.random.default_rng(1).normal(size=(len(COLOURS) + len(THINGS), DIM))
    every = [(colour, thing) for colour in range(4) for thing in range(4)]
    parts = {"train": [pair for pair in every if pair not in VAL] * 3, "val": VAL}
    paths = {}
    for split, shown in parts.items():
        annotations = []
        for number, (colour, thing) in enumerate(shown):
            key = f"{split}{number}.mp4"
            _write(space, key, directions[colour], directions[len(COLOURS) + thing])
            words = f"{COLOURS[colour]} {THINGS[thing]}"
            annotations += [
                Annotation(qid=f"{key}-{place}", video=key, query=query, windows=(), is_labelled=False)
                for place, query in enumerate((f"a {words}", f"{words} in view"))
            ]
        paths[split] = root / f"{split}.jsonl"
        write_annotations(paths[split], annotations)
    return PlantedRetrieval(cache=root / "cache", train=paths["train"], val=paths["val"])


def _write(space: object, key: str, colour: np.ndarray, thing: np.ndarray) -> None:
    rng = np.random.default_rng(sum(key.encode()))
    num_rows = int(rng.integers(5, 12))
    frames = rng.normal(0, 0.2, (num_rows, DIM))
    half = num_rows // 2
    frames[:half] += colour
    frames[half:] += thing
    commit_rows(space, key, np.arange(num_rows) + 0.5, values={"frame": frames.astype(np.float16)})  # type: ignore[arg-type]
