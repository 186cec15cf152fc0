"""Published splits, against the numbers that were published."""

import pytest

from qle.data.readers.splits import CHOLECT50_FOLDS, by_fractions, cholec80_split, cholect50_split
from qle.errors import ConfigError

ALL = range(1, 81)


def part(split: dict[int, str], name: str) -> list[int]:
    return [video for video in sorted(split) if split[video] == name]


@pytest.mark.parametrize(
    ("name", "train", "val"), [("40-40", 40, 40), ("32-8-40", 32, 40), ("40-8-32", 40, 48)]
)  # fmt: skip
def test_cholec80_in_order(name: str, train: int, val: int) -> None:
    split = cholec80_split(name, ALL)
    assert part(split, "train") == list(range(1, train + 1))
    assert part(split, "val") == list(range(train + 1, val + 1))
    assert part(split, "test") == list(range(val + 1, 81))


def test_cholec80_as_qle_shuffled_it() -> None:
    split = cholec80_split("qle", ALL)
    assert part(split, "val") == [13, 27, 28, 30, 35, 42, 45, 46, 65, 69, 72, 78]
    assert part(split, "test") == [4, 5, 12, 14, 15, 18, 29, 32, 36, 55, 70, 79]
    assert len(part(split, "train")) == 56


def test_cholect50_folds_are_the_fifty_videos() -> None:
    videos = [video for fold in CHOLECT50_FOLDS for video in fold]
    assert len(set(videos)) == len(videos) == 50
    split = cholect50_split("fold2", videos)
    assert part(split, "test") == sorted(CHOLECT50_FOLDS[1])
    assert part(split, "val") == sorted((1, 56, 4, 13, 92))
    assert part(cholect50_split("fold5", videos), "val") == sorted((75, 22, 49, 12, 110))
    rdv = cholect50_split("rdv", videos)
    assert part(rdv, "val") == [8, 12, 29, 50, 78]
    assert part(rdv, "test") == [6, 10, 14, 32, 42, 51, 73, 74, 80, 111]


def test_cholect45_lacks_the_last_of_each_fold() -> None:
    videos = [video for fold in CHOLECT50_FOLDS for video in fold[:-1]]
    split = cholect50_split("fold1", videos)
    assert len(split) == 45
    assert part(split, "val") == sorted((74, 1, 56, 4, 13))
    assert part(split, "test") == sorted(CHOLECT50_FOLDS[0][:-1])


def test_fractions_are_of_videos_and_leave_none_out() -> None:
    videos = [f"v{number}" for number in range(11)]
    split = by_fractions(videos, (70, 15, 15), seed=1)
    assert sorted(split) == sorted(videos)
    assert [list(split.values()).count(name) for name in ("train", "val", "test")] == [7, 1, 3]
    assert split != by_fractions(videos, (70, 15, 15), seed=2)


def test_what_is_no_split() -> None:
    with pytest.raises(ConfigError, match="--split 50-50: choose one of 40-40, 32-8-40, 40-8-32, qle"):
        cholec80_split("50-50", ALL)
    with pytest.raises(ConfigError, match="--split fold6: choose one of rdv"):
        cholect50_split("fold6", [1])
    with pytest.raises(ConfigError, match="knows the 50 videos of CholecT50, not 3, 7"):
        cholect50_split("rdv", [1, 3, 7])
    with pytest.raises(ConfigError, match="expected three parts of 100"):
        by_fractions(["a"], (70, 15, 16), seed=0)
