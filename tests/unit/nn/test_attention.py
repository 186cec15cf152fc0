"""Many patches that listen to a few words: the projections of the many are done to the few, and no number tells."""

import pytest
import torch
from torch import Tensor

from qle.nn.attention import Attention


def ask(
    attention: Attention, patches: Tensor, words: Tensor, mask: Tensor, *, is_folded: bool
) -> tuple[Tensor, list[Tensor]]:
    """What is heard, and the gradients of patches, words and weights."""
    if is_folded:
        heard = attention.listen(patches, words, mask)
    else:
        asked = patches.expand(-1, mask.shape[1], -1, -1).flatten(0, 1)
        heard = attention(asked, words.flatten(0, 1), mask.flatten(0, 1)[:, None]).unflatten(0, mask.shape[:2])
    weight = torch.linspace(-1, 1, heard.numel()).view(heard.shape)
    return heard, list(torch.autograd.grad((heard * weight).sum(), [patches, words, *attention.parameters()]))


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("num_words", [4, 20])
def test_listening_is_attention_to_the_words_of_every_query(copies: int, num_words: int) -> None:
    """Four words are few enough to be folded (2 heads x 4 <= 16), twenty are not."""
    torch.manual_seed(0)
    attention = Attention(16, 2).double()
    for linear in (attention.queries, attention.keys_values, attention.out):
        torch.nn.init.normal_(linear.bias)
    patches = torch.randn(2, copies, 9, 16, dtype=torch.float64, requires_grad=True)
    words = torch.randn(2, 3, num_words, 16, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(num_words) < torch.tensor([[1, 4, 2], [3, 0, 4]])[..., None]
    heard, gradients = ask(attention, patches, words, mask, is_folded=True)
    expected, expected_gradients = ask(attention, patches, words, mask, is_folded=False)
    torch.testing.assert_close(heard, expected)
    torch.testing.assert_close(gradients, expected_gradients)
    torch.testing.assert_close(heard[1, 1], attention.out.bias.expand(9, -1))  # a query without words hears nothing


def test_dropout_of_weights_still_happens_in_training() -> None:
    attention = Attention(16, 2, dropout=0.5)
    patches, words, mask = torch.randn(2, 1, 9, 16), torch.randn(2, 3, 4, 16), torch.ones(2, 3, 4, dtype=torch.bool)
    assert not torch.equal(attention.listen(patches, words, mask), attention.listen(patches, words, mask))
    attention.eval()
    torch.testing.assert_close(attention.listen(patches, words, mask), attention.listen(patches, words, mask))
