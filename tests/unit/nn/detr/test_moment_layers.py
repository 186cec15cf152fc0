"""Places of clips and words, attention with places, whole branches left out."""

import pytest
import torch

from qle.errors import InputError
from qle.nn.attention import Attention
from qle.nn.detr.clip_positions import WordPositions, clip_positions, span_positions
from qle.nn.detr.text_to_video import published_mask
from qle.nn.dropout import StochasticDepth


def test_places_are_those_of_the_clip_in_its_own_video() -> None:
    mask = torch.tensor([[True] * 4 + [False] * 2])
    found = clip_positions(mask, 8)
    torch.testing.assert_close(found[:, :4], clip_positions(mask[:, :4], 8))
    assert (found[0, 4] == found[0, 3]).all()
    assert found[0, :4].unique(dim=0).shape[0] == 4
    assert found[0, 3, 0] == pytest.approx(0, abs=1e-4)  # the last clip is a whole turn away
    assert found[0, 1, 0] == pytest.approx(0, abs=1e-5)
    assert found[0, 0, 0] == pytest.approx(1, abs=1e-5)


def test_spans_have_the_code_of_both_coordinates() -> None:
    one, other = span_positions(torch.tensor([[0.3, 0.2], [0.3, 0.9]]), 6)
    assert (one[:6] == other[:6]).all()
    assert (one[6:] != other[6:]).any()


def test_a_query_longer_than_the_table_is_refused() -> None:
    with pytest.raises(InputError, match="a query of 5 word pieces: this head knows places for 4"):
        WordPositions(4, 8)(torch.zeros(1, 5, 8))


@pytest.mark.parametrize("num_sources", [5, 300])
def test_attention_with_places_is_that_of_torch(num_sources: int) -> None:
    """On both of its paths."""
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.queries.weight, ours.keys_values.weight]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    queries, keys, values = torch.randn(2, 3, 16), torch.randn(2, num_sources, 16), torch.randn(2, num_sources, 16)
    mask = torch.rand(2, num_sources) > 0.3
    expected, _ = theirs(queries, keys, values, key_padding_mask=~mask, need_weights=False)
    torch.testing.assert_close(ours.look(queries, keys, values, mask), expected, atol=1e-5, rtol=1e-5)


def test_who_sees_nothing_hears_nothing() -> None:
    attention = Attention(8, 2)
    mask = torch.tensor([[[True, True], [False, False]]])
    out = attention.look(torch.randn(1, 2, 8), torch.randn(1, 2, 8), torch.randn(1, 2, 8), mask)
    torch.testing.assert_close(out[0, 1], attention.out.bias)


def test_whole_branches_of_items_are_left_out_in_training() -> None:
    torch.manual_seed(0)
    layer, x = StochasticDepth(0.25), torch.ones(4000, 3, 2)
    out = layer(x)
    kept = out.flatten(1).amax(1) > 0
    assert (out.flatten(1) == out[:, :1, 0]).all()
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert kept.float().mean() == pytest.approx(0.75, abs=0.05)
    assert layer.eval()(x) is x


def test_the_published_mask_is_that_of_another_item() -> None:
    """parity: rows of the mask in the order of whole batches, read in the order of heads."""
    clips = torch.tensor([[True, True, True], [True, True, False]])
    words = torch.tensor([[True, True, True], [True, False, False]])
    found = published_mask(clips, words, 3)
    for item in range(2):
        for head in range(3):
            other = (item * 3 + head) % 2
            hidden = ~clips[other][:, None] & ~words[other][None, :]
            assert (found[item, head] == (~hidden & words[item])).all()
