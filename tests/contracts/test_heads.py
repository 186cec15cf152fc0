"""What every head promises: a number depends on its own video and query, and on nothing else."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from qle.config import build_config, override
from qle.errors import ConfigError
from qle.heads import HEADS, build_head, head_class
from qle.heads.qle.head import QleConfig
from qle.heads.qle.presence import anywhere
from qle.heads.rows import Batch, RowHead, RowReading
from qle.text.base import Words
from tests.small_heads import QLE_VARIANTS, SHAPES, TINY, random_batch, random_words, small_head

pytestmark = pytest.mark.usefixtures("one_thread")

ORDERED = [name for name in QLE_VARIANTS if name not in ("published", "no-mixer")]


@pytest.fixture(params=QLE_VARIANTS)
def head(request: pytest.FixtureRequest) -> RowHead:
    return small_head(request.param)


def test_every_head_is_under_contract() -> None:
    """Those of other tasks have contracts of their own."""
    assert {name for name in HEADS if head_class(name).task == "rows"} == {"qle"}


def test_the_map_adds_up_to_the_raw_logit(head: RowHead) -> None:
    output = head(random_batch())
    torch.testing.assert_close(output.relevance_map.mean((-2, -1)), output.raw_logit, atol=1e-5, rtol=0)


def test_padding_rows_and_words_change_nothing(head: RowHead) -> None:
    batch = random_batch()
    words = batch.words
    longer = Words(states=F.pad(words.states, (0, 0, 0, 3)), mask=F.pad(words.mask, (0, 3)), sentence=words.sentence)
    padded = replace(
        batch,
        words=longer,
        streams={"patch": F.pad(batch.streams["patch"], (0, 0) * 3 + (0, 7))},
        row_mask=F.pad(batch.row_mask, (0, 7)),
        times_s=F.pad(batch.times_s, (0, 7), value=99.0),
    )
    with torch.no_grad():
        _same_where_real(head(batch).logit, head(padded).logit[..., : batch.row_mask.shape[1]], batch)


def test_what_stands_in_padding_changes_nothing(head: RowHead) -> None:
    batch = random_batch()
    garbage = torch.where(batch.row_mask[..., None, None, None], batch.streams["patch"], torch.tensor(7.0))
    with torch.no_grad():
        _same_where_real(head(batch).logit, head(replace(batch, streams={"patch": garbage})).logit, batch)


def test_the_rest_of_the_batch_changes_nothing(head: RowHead) -> None:
    batch = random_batch()
    with torch.no_grad():
        together = head(batch).logit
        for window in range(len(batch.row_mask)):
            alone = replace(
                batch,
                streams={"patch": batch.streams["patch"][window : window + 1]},
                row_mask=batch.row_mask[window : window + 1],
                times_s=batch.times_s[window : window + 1],
                query_index=batch.query_index[window : window + 1, :1],
                query_mask=batch.query_mask[window : window + 1, :1],
            )
            found = head(alone).logit[0, 0]
            rows = batch.row_mask[window]
            torch.testing.assert_close(found[rows], together[window, 0][rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_and_windows_read_the_same_as_the_whole(head: RowHead, chunk: int) -> None:
    words, tokens = random_words(3), torch.randn(17, *SHAPES.streams["patch"])
    with torch.no_grad():
        whole = head.read_rows({"patch": tokens}, words, with_maps=True)
        parts = [head.read_rows({"patch": part}, words, with_maps=True) for part in tokens.split(chunk)]
    joined = RowReading(
        features=torch.cat([part.features for part in parts], dim=1),
        raw_logit=torch.cat([part.raw_logit for part in parts], dim=1),
        relevance_map=torch.cat([part.relevance_map for part in parts], dim=1),
    )
    for name in ("features", "raw_logit", "relevance_map"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


def test_reading_and_refining_is_what_forward_does(head: RowHead) -> None:
    batch = random_batch()
    with torch.no_grad():
        expected = head(batch)
        for window, rows in enumerate(batch.row_mask.sum(1).tolist()):
            words = batch.words.select(batch.query_index[window])
            reading = head.read_rows({"patch": batch.streams["patch"][window, :rows]}, words)
            scores = head.refine(reading, batch.times_s[window, :rows], batch.row_mask[window, :rows])
            torch.testing.assert_close(scores.logit, expected.logit[window, :, :rows], atol=1e-5, rtol=1e-5)
            assert (scores.presence_logit is None) == (head.config.presence_weight == 0)
            if scores.presence_logit is not None:
                torch.testing.assert_close(scores.presence_logit, expected.presence_logit[window], atol=1e-5, rtol=1e-5)
            if scores.uncertainty is not None:
                assert ((scores.uncertainty > 0) & (scores.uncertainty <= 1)).all()


@pytest.mark.parametrize("variant", ORDERED)
def test_the_mixer_knows_order(variant: str) -> None:
    head = small_head(variant)
    reading = head.read_rows({"patch": torch.randn(12, *SHAPES.streams["patch"])}, random_words(1))
    shuffle = torch.randperm(12)
    shuffled = RowReading(features=reading.features[:, shuffle], raw_logit=reading.raw_logit[:, shuffle])
    times, mask = torch.arange(12).double(), torch.ones(12, dtype=torch.bool)
    with torch.no_grad():
        straight = head.refine(reading, times, mask).logit
        mixed = head.refine(shuffled, times, mask).logit
    assert (mixed - straight[:, shuffle]).abs().max() > 1e-3


def test_the_published_mixer_does_not() -> None:
    """parity: kept as it is, and the reason why it is no default."""
    head = small_head("published")
    reading = head.read_rows({"patch": torch.randn(12, *SHAPES.streams["patch"])}, random_words(1))
    shuffle = torch.randperm(12)
    shuffled = RowReading(features=reading.features[:, shuffle], raw_logit=reading.raw_logit[:, shuffle])
    times, mask = torch.arange(12).double(), torch.ones(12, dtype=torch.bool)
    with torch.no_grad():
        straight, mixed = (head.refine(part, times, mask).logit for part in (reading, shuffled))
    torch.testing.assert_close(mixed, straight[:, shuffle], atol=1e-5, rtol=1e-5)


def test_a_row_that_nothing_is_known_of_has_no_gradient(head: RowHead) -> None:
    batch = random_batch()
    known = torch.zeros_like(batch.relevance_mask)
    losses = head.loss(head(batch), replace(batch, relevance_mask=known))
    assert losses.total.item() == 0
    assert set(losses.terms) >= {"raw", "refined"}


def test_every_parameter_learns(head: RowHead) -> None:
    batch = random_batch()
    head.loss(head(batch), batch).total.backward()
    still = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert [name for name in still if "x_proj" not in name] == []


def test_presence_knows_only_real_rows_and_learns_only_what_was_judged() -> None:
    head, batch = small_head(), random_batch()
    garbage = torch.where(batch.row_mask[..., None, None, None], batch.streams["patch"], torch.tensor(7.0))
    with torch.no_grad():
        said = head(batch).presence_logit
        torch.testing.assert_close(head(replace(batch, streams={"patch": garbage})).presence_logit, said)
    happens, is_known = anywhere(batch.relevance, batch.relevance_mask, batch.row_mask)
    assert is_known.all()
    assert torch.equal(happens > 0, (batch.relevance * batch.relevance_mask).any(-1))
    # One row that nobody judged: where the query happens elsewhere it does happen, else nobody knows.
    unjudged = batch.relevance_mask.clone()
    unjudged[:, :, 0] = False
    relevance = torch.zeros_like(batch.relevance)
    relevance[0, 0, 1] = 1.0
    happens, is_known = anywhere(relevance, unjudged, batch.row_mask)
    assert is_known.nonzero().tolist() == [[0, 0]]
    assert happens[0, 0] == 1
    losses = head.loss(head(batch), replace(batch, relevance=relevance, relevance_mask=unjudged))
    assert losses.terms["presence"].item() > 0
    assert head.loss_counts(replace(batch, relevance=relevance, relevance_mask=unjudged))["presence"].item() == 1


def _same_where_real(expected: torch.Tensor, found: torch.Tensor, batch: Batch) -> None:
    real = batch.row_mask[:, None].expand_as(expected)
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        "dim=0", "dim=-4", "hidden=0", "temporal_hidden=0", "stem=-1", "look_reach=-1", "map_gain=0.0", "temporal_layers=0",
        "num_heads=0", "map_gain=inf",
    ],
)  # fmt: skip
def test_sizes_that_make_no_head_are_named(setting: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=f"head qle.{name} = .*: expected"):
        build_config(QleConfig, override({}, [setting]), where="head qle")


@pytest.mark.parametrize(
    ("temporal", "name"), [("scores", "num_heads"), ("scores", "temporal_heads"), ("ssm", "num_heads")]
)
def test_heads_of_attention_that_do_not_fit_are_named(temporal: str, name: str) -> None:
    """Over raw scores nothing was checked, and the first batch failed on shapes."""
    with pytest.raises(ConfigError, match=f"no multiple of {name} = 3"):
        build_head("qle", TINY | {"temporal": temporal, name: 3}, SHAPES)
