"""What the measures of faithfulness are made of."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from qle.data.annotations import Annotation
from qle.explain.faithfulness import _elsewhere
from qle.explain.visible import Visible


def test_picture_swap_is_with_another_video() -> None:
    """Targets of a video come one after the other: the row of the one before was often the very same picture."""
    asked = Annotation(qid="1", video="a", query="a polyp", windows=((0.0, 1.0),))
    targets = [
        Visible(video=video, annotation=asked, rows=np.array([row]), masks=(np.ones((1, 1), bool),))
        for row, video in enumerate(["a", "a", "b", "c"])
    ]
    scorer: Any = SimpleNamespace(tokens_of=lambda video, rows: ((video, rows.tolist()),))
    space: Any = SimpleNamespace(video=lambda key: key)
    assert [_elsewhere(scorer, space, place, targets) for place in range(4)] == [
        ("b", [2]), ("b", [2]), ("c", [3]), ("a", [0])
    ]  # fmt: skip
    assert _elsewhere(scorer, space, 0, targets[:2]) == ("a", [0])
