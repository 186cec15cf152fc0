"""Rows are labelled by every annotation of a concept, by the rule of evaluation; and no window is left without a question."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qle.data.annotations import Annotation
from qle.data.rows import RowChoice
from qle.tasks.rows.batches.config import DataConfig
from qle.tasks.rows.batches.questions import Questioner, row_labels


def asked(query: str, *windows: tuple[float, float], concept: str = "") -> Annotation:
    return Annotation(qid=query, video="a", query=query, windows=windows, concept=concept)


def rows_between(edges_s: np.ndarray) -> RowChoice:
    count = len(edges_s) - 1
    return RowChoice(
        index=np.arange(count), times_s=edges_s[:-1], edges_s=edges_s, valid=np.ones(count, bool),
        duration_s=float(edges_s[-1]),
    )  # fmt: skip


def labels(annotations: list[Annotation], edges_s: np.ndarray) -> list[float]:
    relevance, known = row_labels(annotations, rows_between(edges_s), DataConfig())
    assert relevance.dtype == np.float32
    assert known is None
    return relevance.tolist()


def test_labels_unite_the_annotations_of_a_concept() -> None:
    same = [asked("a polyp", (10, 20)), asked("an adenoma", (40, 50))]
    assert labels(same, np.arange(0, 61, 5.0)) == [0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]
    assert labels([asked("blood")], np.arange(4.0)) == [0, 0, 0]


def test_half_of_a_row_is_enough() -> None:
    assert labels([asked("x", (0.5, 1.4), (2.2, 2.45), (2.5, 2.75))], np.array([0, 1, 2, 3.0])) == [1, 0, 1]


spans = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=6
)


@given(spans, spans, st.integers(1, 7))
def test_labels_equal_a_count_of_small_pieces(first: list, second: list, width: int) -> None:
    edges = np.arange(0, 71, width)
    is_inside = np.array([any(start <= at < end for start, end in [*first, *second]) for at in range(80)])
    expected = [is_inside[low:high].mean() >= 0.5 for low, high in pairwise(edges)]
    assert labels([asked("x", *first), asked("y", *second)], edges) == expected


def test_a_window_of_which_nothing_is_known_still_has_a_question(rng: np.random.Generator) -> None:
    """A batch of such windows had no query at all, and the text encoder refuses to encode none."""
    asks = Questioner(
        {"a": [asked("a polyp", (0, 2))]}, {"a": rows_between(np.arange(9.0))}, DataConfig(negatives=("absent",))
    )
    assert [(one.text, one.known) for one in asks.ask("a", 0, 2, rng)] == [("a polyp", True)]
    assert [(one.text, one.known) for one in asks.ask("a", 4, 8, rng)] == [("a polyp", False)]
