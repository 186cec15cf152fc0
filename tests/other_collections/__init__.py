"""Collections of golden numbers with other sets, sizes, options, seeds and names of cases than the one that we work with.

    seed -> official options drawn at random -> a head with random weights -> config.json, weights and cases of a set

The numbers of such a collection are those of our own heads (of QLE those of torch's modules), so they prove little about an
official program. What they prove is that the parity tests know no number of our collection, and that the official form of a head,
names and options, holds all of it: each set is made by exporting a head, and read by importing it again.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from tests.golden_sets import kind_of
from tests.other_collections.backbones import m2crl_set
from tests.other_collections.evaluations import charades_set, qvhighlights_set
from tests.other_collections.moments import moment_set
from tests.other_collections.retrieval import tmass_set
from tests.other_collections.rows import qle_set

MAKERS: Mapping[str, Callable[[Path, random.Random], None]] = {
    "moment-detr": moment_set, "qd-detr": moment_set, "cg-detr": moment_set, "mesm": moment_set, "qle": qle_set,
    "tmass": tmass_set, "m2crl": m2crl_set, "qvh-eval": qvhighlights_set, "charades-eval": charades_set,
}  # fmt: skip
"""Systems that parity tests know, and who makes a set of each."""


def make_collection(folder: Path, seed: int, names: tuple[str, ...]) -> None:
    """Sets of these names, each of the system that its name begins with."""
    for number, name in enumerate(names):
        make_set(folder / name, seed * 1000 + number)


def make_set(folder: Path, seed: int) -> None:
    kind = kind_of(folder.name)
    assert kind is not None, f"nobody knows what a set {folder.name} is of"
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    draw = random.Random(seed)
    MAKERS[kind](folder, draw)
