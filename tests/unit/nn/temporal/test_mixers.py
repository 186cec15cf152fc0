"""Temporal mixers: blocks equal the dense form, the scan equals the recurrence, long videos take linear memory."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qle.nn.positions import grid_positions, rotary_angles, rotate
from qle.nn.temporal.ssm import SsmMixer, scan
from qle.nn.temporal.transformer import TemporalTransformer


def test_the_scan_is_the_recurrence() -> None:
    torch.manual_seed(0)
    batch, rows, heads, width, state = 2, 150, 3, 4, 5
    x, b, c = torch.randn(batch, rows, heads, width), torch.randn(batch, rows, state), torch.randn(batch, rows, state)
    step, decay = torch.rand(batch, rows, heads), torch.rand(batch, rows, heads) * 2
    h = torch.zeros(batch, heads, state, width)
    expected = []
    for t in range(rows):
        entering = torch.einsum("nd,nhw->nhdw", b[:, t], x[:, t] * step[:, t][..., None])
        h = torch.exp(-decay[:, t])[..., None, None] * h + entering
        expected.append(torch.einsum("nd,nhdw->nhw", c[:, t], h))
    torch.testing.assert_close(scan(x, step, decay, b, c), torch.stack(expected, 1), atol=1e-4, rtol=1e-4)


def test_a_long_video_in_one_pass_is_finite_and_hears_the_far_end() -> None:
    torch.manual_seed(0)
    mixer = SsmMixer(16, num_layers=1, num_heads=2, state_dim=4, dropout=0.0).eval()
    features = torch.randn(1, 10_000, 16)
    mask = torch.ones(1, 10_000, dtype=torch.bool)
    with torch.no_grad():
        mixed = mixer(features, torch.arange(10_000.0)[None], mask)
    assert mixed.isfinite().all()
    assert mixed.shape == features.shape


@pytest.mark.parametrize("rows", [13, 40, 64])
def test_blocks_equal_the_dense_form(rows: int) -> None:
    torch.manual_seed(0)
    mixer = TemporalTransformer(16, num_layers=2, num_heads=2, hidden=32, dropout=0.0, reach=3).eval()
    features, times = torch.randn(2, rows, 16), torch.arange(rows).double().expand(2, -1)
    mask = torch.rand(2, rows) > 0.2
    with torch.no_grad():
        blocks = mixer(features, times, mask)
        dense = _dense(mixer, features, times, mask)
    torch.testing.assert_close(blocks, dense, atol=1e-5, rtol=1e-5)


def _dense(mixer: TemporalTransformer, features: Tensor, times: Tensor, mask: Tensor) -> Tensor:
    """The same layers with one big mask, written out."""
    x = features
    rows = x.shape[1]
    near = (torch.arange(rows)[:, None] - torch.arange(rows)).abs() <= 3
    for layer in mixer.layers:
        attention = layer.attention
        queries, (keys, values) = attention.split_queries(x), attention.split_keys_values(x)
        angles = rotary_angles(times, attention.head_dim)
        weight = rotate(queries, angles) @ rotate(keys, angles).transpose(-1, -2) / attention.head_dim**0.5
        weight = weight.masked_fill(~(near & mask[:, None, None]), float("-inf")).softmax(-1).nan_to_num()
        x = layer.norms[0](x + attention.out((weight @ values).transpose(1, 2).flatten(2)))
        x = layer.norms[1](x + layer.feed_forward(x))
    return x


def test_time_is_measured_in_seconds() -> None:
    """The same two events at twice the rate are as far apart; the same numbers of rows at another rate are not."""
    torch.manual_seed(0)
    mixer = TemporalTransformer(16, num_layers=1, num_heads=2, hidden=32, dropout=0.0, reach=8).eval()
    features, mask = torch.randn(1, 6, 16), torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        slow, fast, later = (
            mixer(features, torch.arange(6).double()[None] * gap + begin, mask)
            for gap, begin in ((1.0, 0.0), (0.25, 0.0), (1.0, 36_000.0))
        )
    assert (slow - fast).abs().max() > 1e-3
    torch.testing.assert_close(slow, later, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["transformer", "ssm"])
def test_work_is_linear_in_the_length(kind: str) -> None:
    mixer: nn.Module = SsmMixer(8, num_layers=1, num_heads=1, state_dim=4, dropout=0.0)
    if kind == "transformer":
        mixer = TemporalTransformer(8, num_layers=1, num_heads=1, hidden=8, dropout=0.0, reach=4)
    counts = []
    for rows in (1000, 4000):
        mask = torch.ones(1, rows, dtype=torch.bool)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            mixer.eval()(torch.zeros(1, rows, 8), torch.arange(rows).double()[None], mask)
        counts.append(counter.get_total_flops())
    assert counts[1] == pytest.approx(4 * counts[0], rel=0.05)


@pytest.mark.parametrize("dim", [4, 16, 96, 7])
def test_places_are_told_apart_and_mean_the_same_on_other_grids(dim: int) -> None:
    code = grid_positions(4, 4, dim)
    assert code.shape == (16, dim)
    assert (torch.cdist(code, code) + 9 * torch.eye(16)).min() > 0
    if dim == 16:
        corner = nn.functional.cosine_similarity(code[0], grid_positions(5, 5, dim)[0], dim=0)
        assert corner > 0.8
