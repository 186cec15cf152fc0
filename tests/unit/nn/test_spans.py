"""Arithmetic of spans, with gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from qle.nn.spans import inverse_sigmoid, paired_giou, pairwise_giou, to_edges

SPAN = st.tuples(st.floats(0, 1), st.floats(0.001, 1)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(a=SPAN, b=SPAN)
def test_generalised_overlap_is_one_for_the_same_and_falls_with_distance(
    a: tuple[float, float], b: tuple[float, float]
) -> None:
    one, other = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    found = paired_giou(one, other)
    assert -1 <= found <= 1 + 1e-9
    torch.testing.assert_close(found, paired_giou(other, one))
    torch.testing.assert_close(paired_giou(one, one), torch.tensor(1.0, dtype=torch.float64))
    assert paired_giou(one, other + 3) < paired_giou(one, other + 2.5) < 0
    torch.testing.assert_close(pairwise_giou(one[None], torch.stack([other, one]))[0, 0], found)


@given(span=SPAN)
def test_centres_and_edges_are_the_same_spans(span: tuple[float, float]) -> None:
    start, end = span
    centre_width = torch.tensor([(start + end) / 2, end - start], dtype=torch.float64)
    torch.testing.assert_close(to_edges(centre_width), torch.tensor(span, dtype=torch.float64))


def test_points_have_an_overlap_and_a_gradient() -> None:
    """Two spans of no length at one place made the published loss NaN."""
    point = torch.tensor([[0.5, 0.5], [0.2, 0.2]], requires_grad=True)
    found = paired_giou(point, torch.tensor([[0.5, 0.5], [0.7, 0.7]]))
    found.sum().backward()
    assert found.tolist() == [0.0, -1.0]
    assert torch.isfinite(point.grad).all()


def test_the_inverse_sigmoid_is_bounded() -> None:
    x = torch.tensor([0.0, 0.001, 0.3, 0.999, 1.0])
    torch.testing.assert_close(inverse_sigmoid(x).sigmoid()[1:4], x[1:4])
    assert torch.isfinite(inverse_sigmoid(x)).all()
