"""Which video belongs to which part: the published splits, and splits by fractions. Always by video, never by query.

Names or numbers of videos enter, {number: "train" | "val" | "test"} leaves. Tuned on val, told on test: a split without a
val part has none, and nothing here ever takes test for it.
"""

import random
from collections.abc import Collection, Sequence
from typing import TypeVar

from qle.errors import ConfigError

Video = TypeVar("Video", int, str)

CHOLEC80_SPLITS: dict[str, tuple[int, int]] = {"40-40": (40, 40), "32-8-40": (32, 40), "40-8-32": (40, 48)}
"""Last training video and last validation video of 1 to 80; the rest is test."""

CHOLEC80_QLE = "qle"
"""The split published with QLE: 70 : 15 : 15 of a shuffle with seed 42 over the videos that are there."""

CHOLECT50_FOLDS: tuple[tuple[int, ...], ...] = (
    (79, 2, 51, 6, 25, 14, 66, 23, 50, 111),
    (80, 32, 5, 15, 40, 47, 26, 48, 70, 96),
    (31, 57, 36, 18, 52, 68, 10, 8, 73, 103),
    (42, 29, 60, 27, 65, 75, 22, 49, 12, 110),
    (78, 43, 62, 35, 74, 1, 56, 4, 13, 92),
)
"""Cross-validation over 50 videos; the 45 of CholecT45 lack the last of each."""

CHOLECT50_RDV_VAL = (8, 12, 29, 50, 78)
CHOLECT50_RDV_TEST = (6, 51, 10, 73, 14, 74, 32, 80, 42, 111)


def cholec80_split(name: str, videos: Collection[int]) -> dict[int, str]:
    """One of CHOLEC80_SPLITS or CHOLEC80_QLE over the videos that are there."""
    if name == CHOLEC80_QLE:
        return by_fractions(sorted(videos), (70, 15, 15), seed=42)
    if name not in CHOLEC80_SPLITS:
        raise ConfigError(f"--split {name}: choose one of {', '.join([*CHOLEC80_SPLITS, CHOLEC80_QLE])}")
    last_train, last_val = CHOLEC80_SPLITS[name]
    return {
        video: "train" if video <= last_train else "val" if video <= last_val else "test" for video in sorted(videos)
    }


def cholect50_split(name: str, videos: Collection[int]) -> dict[int, str]:
    """ "rdv", or "fold1" to "fold5": that fold is test, and the last five of the others, in the order of the folds, are val."""
    val: tuple[int, ...]
    test: tuple[int, ...]
    if name == "rdv":
        val, test = CHOLECT50_RDV_VAL, CHOLECT50_RDV_TEST
    elif name in (names := [f"fold{fold}" for fold in range(1, len(CHOLECT50_FOLDS) + 1)]):
        number = names.index(name)
        test = CHOLECT50_FOLDS[number]
        others = [video for index, fold in enumerate(CHOLECT50_FOLDS) if index != number for video in fold]
        val = tuple([video for video in others if video in videos][-5:])
    else:
        raise ConfigError(f"--split {name}: choose one of rdv, fold1, fold2, fold3, fold4, fold5")
    known = {video for fold in CHOLECT50_FOLDS for video in fold}
    if strangers := sorted(set(videos) - known):
        raise ConfigError(f"split {name} knows the 50 videos of CholecT50, not {', '.join(map(str, strangers[:5]))}")
    return {video: "test" if video in test else "val" if video in val else "train" for video in sorted(videos)}


def by_fractions(videos: Sequence[Video], percent: tuple[int, int, int], *, seed: int) -> dict[Video, str]:
    """Shuffled in the order given, then cut; test takes what rounding leaves."""
    if sum(percent) != 100 or min(percent) < 0:
        raise ConfigError(f"--split {'-'.join(map(str, percent))}: expected three parts of 100, e.g. 70-15-15")
    shuffled = list(videos)
    random.Random(seed).shuffle(shuffled)
    # Integers: int(0.15 * 80) depends on how 0.15 is rounded.
    num_train, num_val = len(shuffled) * percent[0] // 100, len(shuffled) * percent[1] // 100
    split = ["train"] * num_train + ["val"] * num_val
    split += ["test"] * (len(shuffled) - len(split))
    return dict(zip(shuffled, split, strict=True))
