"""Which words are hidden, and what they are called."""

import pytest
import torch

from qle.heads.mesm.words import WordClasses, draw_hidden, word_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def test_classes() -> None:
    classes = WordClasses(vocabulary=(30, 10, 20), marks=(1, 2), function_words=(10,))
    assert classes.num_classes == 6
    ids = torch.tensor([[1, 30, 10, 99, 2, 0], [1, 20, 5, 2, 0, 0]])
    assert classes.labels(ids).tolist() == [[4, 0, 1, 3, 5, 3], [4, 2, 3, 5, 3, 3]]
    assert classes.weights(ids)[0].tolist() == [0, 2, 1, 2, 0, 2]
    assert list(classes.state_dict()) == []


def test_a_third_is_hidden_and_content_rather_than_function() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([[0.0, 2, 1, 1, 2, 1, 1, 0], [0, 2, 0, 5, 5, 5, 5, 5], [1, 5, 5, 5, 5, 5, 5, 5]])
    mask = torch.tensor([[True] * 8, [True] * 3 + [False] * 5, [True] + [False] * 7])
    drawn = torch.stack([draw_hidden(weights, mask) for _ in range(2000)])
    assert drawn[:, 0].sum(dim=1).unique().tolist() == [2]  # eight words, marks counted
    assert drawn[:, 1].nonzero().unique(dim=0)[:, 1].unique().tolist() == [1]  # the only one that may be
    assert not drawn[:, 2].any()  # of one word nothing is left to tell it from
    share = drawn[:, 0].float().mean(dim=0)
    assert share[[0, 7]].sum() == 0
    # One after the other, with weights 2 1 1 2 1 1 of 8: 2/8 + 2 (2/8 2/7 ...): 0.4464 and 0.2768.
    first = torch.tensor([2.0, 1, 1, 2, 1, 1])
    expected = first / 8 + sum(
        torch.where(torch.arange(6) == k, 0.0, first[k] / 8 * first / (8 - first[k])) for k in range(6)
    )
    torch.testing.assert_close(share[1:7], expected, atol=0.04, rtol=0)


def test_the_loss_is_a_mean_of_means_over_items_that_count() -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[1, 2, 0, 0], [4, 0, 0, 0], [3, 3, 3, 3]])
    mask = torch.tensor([[True, True, False, False], [True, False, False, False], [True] * 4])
    counts = torch.tensor([True, False, True])
    log_p = logits.log_softmax(-1)
    each = -0.9 * log_p.gather(2, labels[..., None])[..., 0] - 0.1 / 5 * log_p.sum(-1)
    expected = (each[0, :2].mean() + each[2].mean()) / 2
    torch.testing.assert_close(word_loss(logits, labels, mask, counts), expected)
    assert word_loss(logits, labels, mask, torch.zeros(3, dtype=torch.bool)) == 0
