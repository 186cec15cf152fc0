"""A corpus in which words tell both the video and the moment: "hook in the kitchen" is a room and, for a while, a thing.

    planted_corpus -> a cache with one space, train.jsonl and val.jsonl; trained_runs -> a retriever and a localizer over it

A room is seen all the time, a thing in some clips. Of the validation videos each is in another room.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qle.cli.app import app
from qle.data.annotations import Annotation, write_annotations
from tests.planted_moments import CLIP_S, planted_cache

ROOMS = ("kitchen", "garden", "cellar", "attic", "office", "garage", "studio", "chapel")
THINGS = ("hook", "clip", "needle", "bag")
DIM = len(ROOMS) + len(THINGS)
NUM_TRAIN = 48
RETRIEVER = (
    *("head.dim=32", "head.num_frames=6", "head.trials=4", "head.dropout=0.0", "text.dim=32", "data.pairs_per_batch=8"),
    *("train.steps=60", "train.lr=3e-3", "train.text_lr=1e-2", "train.eval_every=30", "train.ema_decay=0.9"),
)
LOCALIZER = (
    *("head.dim=32", "head.num_heads=2", "head.hidden=64", "head.encoder_layers=1", "head.num_queries=4"),
    *("head.text_to_video_layers=1", "head.input_dropout=0.0", "head.dropout=0.0", "text.dim=16"),
    *("data.window_clips=32", "data.items_per_batch=16", "train.precision=float32"),
    *("train.steps=220", "train.lr=4e-3", "train.text_lr=1e-2", "train.eval_every=110"),
)


@dataclass(frozen=True, kw_only=True)
class PlantedCorpus:
    """Where things are."""

    cache: Path
    train: Path
    val: Path
    retriever: Path
    localizer: Path

    def search(self, *more: object) -> list[str]:
        """Of `qle search`, with both runs."""
        line = ["search", "--cache", self.cache, "--retriever", self.retriever, "--localizer", self.localizer]
        return [*map(str, line), "--device", "cpu", "-q", *map(str, more)]

    def evaluation(self, *more: object) -> list[str]:
        """Of `qle eval --protocol corpus`."""
        line = ["eval", "--protocol", "corpus", "--cache", self.cache, "--checkpoint", self.localizer]
        line += ["--retriever", self.retriever, "--annotations", self.val]
        return [*map(str, line), "--device", "cpu", "-q", *map(str, more)]


def planted_corpus(root: Path) -> PlantedCorpus:
    """Without runs."""
    videos: dict[str, np.ndarray] = {}
    annotations: dict[str, list[Annotation]] = {"train": [], "val": []}
    for number in range(NUM_TRAIN + len(ROOMS)):
        split = "train" if number < NUM_TRAIN else "val"
        rng = np.random.default_rng([3, number])
        room, num_clips = number % len(ROOMS), int(rng.integers(20, 31))
        name = f"{split}{number}"
        features = rng.normal(0, 0.02, (num_clips, DIM)).astype(np.float32)
        features[:, room] += 2.0
        middle = num_clips // 2
        for half, thing in enumerate(rng.permutation(len(THINGS))[:2].tolist()):
            start = half * middle + int(rng.integers(0, middle - 5))
            stop = start + int(rng.integers(3, 6))
            features[start:stop, len(ROOMS) + thing] += 8.0
            annotations[split].append(
                Annotation(
                    qid=f"{name}-{thing}", video=name, query=f"{THINGS[thing]} in the {ROOMS[room]}",
                    windows=((start * CLIP_S, stop * CLIP_S),), duration_s=num_clips * CLIP_S,
                )
            )  # fmt: skip
        videos[name] = features
    cache = planted_cache(root, videos)
    for split, rows in annotations.items():
        write_annotations(root / f"{split}.jsonl", rows)
    return PlantedCorpus(
        cache=cache, train=root / "train.jsonl", val=root / "val.jsonl", retriever=root / "retriever",
        localizer=root / "localizer",
    )  # fmt: skip


def train_runs(corpus: PlantedCorpus) -> None:
    """By the command, in seconds."""
    for head, out, settings in (
        ("tmass", corpus.retriever, RETRIEVER), ("qd_detr", corpus.localizer, LOCALIZER),
    ):  # fmt: skip
        line = ["--cache", corpus.cache, "--annotations", corpus.train, "--val", corpus.val, "--out", out]
        assignments = [part for setting in settings for part in ("--set", setting)]
        named = ["--head", head, "--device", "cpu", "--track", "none", "-q"]
        app(["train-heads", *map(str, line), *named, *assignments], standalone_mode=False)
