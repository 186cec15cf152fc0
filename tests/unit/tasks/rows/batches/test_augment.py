"""Mirrored maps and what becomes of the words."""

import numpy as np
import pytest
import torch

from qle.tasks.rows.batches.augment import Augmentation, apply, draw, mirrored
from qle.tasks.rows.batches.config import DataConfig
from qle.types import Stream

PATCH = {"patch": Stream(name="patch", row_shape=(4, 3, 8), axes=("rows", "cols", "dim"), dtype="float16")}
LEFT_RIGHT, UP_DOWN = Augmentation(left_right=True), Augmentation(up_down=True)


@pytest.mark.parametrize(
    ("query", "by", "expected"),
    [
        ("a grasper enters from the left", LEFT_RIGHT, "a grasper enters from the right"),
        ("Left of the polyp, RIGHT side", LEFT_RIGHT, "Right of the polyp, LEFT side"),
        ("the leftover is bright", LEFT_RIGHT, "the leftover is bright"),
        ("top left", LEFT_RIGHT, "top right"),
        ("top left", UP_DOWN, "bottom left"),
        ("Upper part, above the lower one; below it", UP_DOWN, "Lower part, below the upper one; above it"),
        ("stop", UP_DOWN, "stop"),
        (
            "a polyp shows up right after a spray, right of it",
            LEFT_RIGHT,
            "a polyp shows up right after a spray, left of it",
        ),
        ("the rightmost one moves upwards", LEFT_RIGHT, "the leftmost one moves upwards"),
        ("the rightmost one moves upwards", UP_DOWN, "the rightmost one moves downwards"),
        ("the loop turns clockwise", LEFT_RIGHT, "the loop turns counterclockwise"),
        ("the loop turns clockwise", UP_DOWN, "the loop turns counterclockwise"),
    ],
)
def test_side_words_change_sides(query: str, by: Augmentation, expected: str) -> None:
    assert mirrored(query, by) == expected
    assert mirrored(expected, by) == query


def test_turns_by_any_name() -> None:
    for word in ("counter-clockwise", "anticlockwise", "counterclockwise"):
        assert mirrored(f"it turns {word}", LEFT_RIGHT) == "it turns clockwise"
    both = Augmentation(left_right=True, up_down=True)  # half a turn of the picture
    assert mirrored("it turns clockwise", both) == "it turns clockwise"


def test_maps_are_mirrored_along_the_right_axis() -> None:
    before = torch.arange(3 * 2 * 4 * 3 * 8).reshape(3, 2, 4, 3, 8).half()
    tokens = {"patch": before.clone()}
    apply(tokens, PATCH, [LEFT_RIGHT, UP_DOWN, Augmentation()])
    assert torch.equal(tokens["patch"][0], before[0].flip(2))
    assert torch.equal(tokens["patch"][1], before[1].flip(1))
    assert torch.equal(tokens["patch"][2], before[2])


def test_dropped_tokens_are_whole_and_as_many_as_asked() -> None:
    config = DataConfig(window_rows=200, token_dropout=0.25)
    tokens = {"patch": torch.ones(1, 200, 4, 3, 8)}
    apply(tokens, PATCH, [draw(config, PATCH, np.random.default_rng(0))])
    per_token = tokens["patch"].mean(-1)
    assert set(per_token.unique().tolist()) == {0.0, 1.0}
    assert float(1 - per_token.mean()) == pytest.approx(0.25, abs=0.03)


def test_nothing_is_drawn_unless_asked() -> None:
    rng = np.random.default_rng(0)
    assert draw(DataConfig(), PATCH, rng) == Augmentation()
    assert rng.random() == np.random.default_rng(0).random()
