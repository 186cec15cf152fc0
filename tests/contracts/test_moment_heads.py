"""What every moment head promises: an item's numbers depend on that item, and answers lie inside the window."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from qle.config import build_config
from qle.errors import ConfigError
from qle.heads import HEADS, head_class
from qle.heads.moments import MomentBatch, MomentHead, MomentOutput
from qle.nn.detr.matcher import Matches
from tests.small_moments import (
    VARIANTS,
    Variant,
    moment_batch,
    picked,
    small_moment_head,
    with_more_padding,
    without_answers,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ORDER = [5, 4, 7, 6, 1, 0, 3, 2]
"""Of the items, with those of one source still side by side."""


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@pytest.fixture
def head(request: pytest.FixtureRequest, variant: Variant) -> MomentHead:
    (name,) = (name for name, known in VARIANTS.items() if known is variant)
    return small_moment_head(name)


def test_every_moment_head_is_under_contract() -> None:
    names = {name for name in HEADS if head_class(name).task == "moments"}
    assert names == {variant.head for variant in VARIANTS.values()}


@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_padding_and_what_stands_in_it_change_nothing(head: MomentHead, fill: float) -> None:
    batch = moment_batch()
    padded = with_more_padding(batch, num_clips=3, num_words=2, fill=fill)
    with torch.no_grad():
        _same(head(batch), head(padded), batch.clip_mask)
        _same_terms(head.loss(head(batch), batch).terms, head.loss(head(padded), padded).terms)


def test_the_order_of_the_batch_changes_nothing(head: MomentHead) -> None:
    batch = moment_batch()
    other = picked(batch, ORDER)
    with torch.no_grad():
        output, turned = head(batch), head(other)
        _same(_picked_output(output, ORDER), turned, other.clip_mask)
        _same_terms(head.loss(output, batch).terms, head.loss(turned, other).terms)


def test_the_rest_of_the_batch_changes_nothing(head: MomentHead, variant: Variant) -> None:
    batch = without_answers(moment_batch())
    groups = [[item] for item in range(8)]
    if variant.groups_sources:
        groups = [[item, item + 1] for item in range(0, 8, 2)]
    with torch.no_grad():
        together = head(batch)
        for items in groups:
            alone = head(picked(batch, items))
            _same(_picked_output(together, items), alone, batch.clip_mask[items])


def test_answers_lie_inside_the_window(head: MomentHead) -> None:
    """Also those of a network that has gone to the edges of what a sigmoid says, where spans have no length."""
    batch = moment_batch()
    with torch.no_grad():
        output = head(batch)
        edges = torch.cartesian_prod(*[torch.tensor([0.0, 1e-8, 0.5, 1 - 1e-7, 1.0])] * 2)
        far = replace(output, spans=edges.expand(2, 8, -1, -1), logits=torch.zeros(2, 8, len(edges), 2))
    for scores in (head.decode(output), head.decode(far)):
        start, end = scores.spans.unbind(-1)
        assert ((start >= 0) & (end > start) & (end <= 1)).all()
        assert scores.logit.shape == start.shape
    assert scores.saliency.shape == batch.clip_mask.shape


def test_a_negative_pass_is_made_where_there_is_a_negative_only(head: MomentHead) -> None:
    """The published programs make it at inference too, for nothing: a third of the work and more."""
    batch = moment_batch()
    work = {}
    for name, given in (("training", batch), ("inference", without_answers(batch))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = head(given)
        work[name] = counter.get_total_flops()
        assert output.negative_saliency is None or name == "training"
    if output.negative_saliency is None and head(batch).negative_saliency is None:
        assert work["inference"] <= work["training"]
    else:
        assert work["inference"] < 0.9 * work["training"]


def test_training_reaches_every_parameter(head: MomentHead, variant: Variant) -> None:
    batch = moment_batch()
    head.loss(head(batch), batch).total.backward()
    still = {name for name, parameter in head.named_parameters() if parameter.grad is None}
    assert {name for name in still if not name.startswith(tuple(variant.silent))} == set()


def test_items_with_nothing_in_them_have_a_finite_loss(head: MomentHead) -> None:
    batch = moment_batch()
    targets = batch.targets
    assert targets is not None
    empty = replace(
        targets,
        spans=targets.spans[:0],
        counts=(0,) * 8,
        relevant=torch.zeros_like(targets.relevant),
        saliency=torch.zeros_like(targets.saliency),
        pair_mask=torch.zeros_like(targets.pair_mask),
    )
    nothing = replace(batch, targets=empty)
    total = head.loss(head(nothing), nothing).total
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in head.parameters())


def test_halves_of_a_batch_add_up_to_the_whole(head: MomentHead, variant: Variant) -> None:
    batch = moment_batch()
    halves = [picked(batch, list(range(4))), picked(batch, list(range(4, 8)))]
    with torch.no_grad():
        whole = head.loss(head(batch), batch).terms
        parts = [head.loss(head(half), half).terms for half in halves]
    count = head.loss_counts(batch)
    for name, term in whole.items():
        if name in variant.across_items:
            continue
        key = name if name in count else "*"
        found = sum(
            part[name] * head.loss_counts(half)[key] / count[key] for part, half in zip(parts, halves, strict=True)
        )
        torch.testing.assert_close(found, term, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_half_precision_is_near(head: MomentHead) -> None:
    """Matrices in bfloat16, losses in float32."""
    batch = moment_batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = head(batch)
        losses = head.loss(output, batch)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    with torch.no_grad():
        exact = head(batch)
    assert output.spans.dtype == output.saliency.dtype == torch.float32
    torch.testing.assert_close(output.spans, exact.spans, atol=0.1, rtol=0)
    torch.testing.assert_close(losses.total, head.loss(exact, batch).total, atol=0, rtol=0.1)


class OneDevice(TorchDispatchMode):
    """Refuses what a GPU refuses, or waits for: tensors of two devices in one step, an index from the host among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor) and part.ndim]
        devices = {part.device.type for part in given}
        assert len(devices) < 2, f"{func} was given tensors of {' and '.join(sorted(devices))}"
        return func(*args, **(kwargs or {}))


def test_a_training_step_waits_for_the_matching_alone(
    head: MomentHead, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device without numbers nothing can be asked for, as by `item` and `nonzero`. CG-DETR did so three times a step."""
    if variant.groups_sources:
        pytest.skip("how many clips a source has decides about shapes")
    waits = []

    def match(logits: Tensor, spans: Tensor, target_spans: Tensor, counts: tuple[int, ...], costs: object) -> Matches:
        waits.append(len(logits))
        nothing = torch.zeros(sum(counts) * len(logits), dtype=torch.int64, device=logits.device)
        return Matches(layer=nothing, item=nothing, query=nothing, target=nothing)

    monkeypatch.setattr("qle.nn.detr.set_losses.match", match)
    nowhere = torch.device("meta")
    head, batch = head.to(nowhere).train(), moment_batch().to(nowhere)
    with OneDevice():
        head.loss_counts(batch)
        output = head(batch)
        head.loss(output, batch).total.backward()
        head.decode(output)
    assert waits == [2]  # both layers at once


def test_a_small_head_answers_at_once(head: MomentHead) -> None:
    batch = without_answers(moment_batch())
    spent_s = []
    with torch.no_grad():
        for _ in range(5):
            began_s = time.process_time()  # its own work: what else the machine does is not its fault
            head(batch)
            spent_s.append(time.process_time() - began_s)
    assert min(spent_s) < 0.05


@pytest.mark.parametrize("name", sorted({variant.head for variant in VARIANTS.values()}))
@pytest.mark.parametrize("setting", [{"dim": 18}, {"num_queries": 0}, {"dropout": 1.0}, {"losses": {"span": -1.0}}])
def test_settings_that_make_no_head_are_named(name: str, setting: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        build_config(head_class(name).Config, setting, where=f"head {name}")


def _picked_output(output: MomentOutput, items: list[int]) -> MomentOutput:
    negative = output.negative_saliency
    return MomentOutput(
        logits=output.logits[:, items],
        spans=output.spans[:, items],
        saliency=output.saliency[items],
        negative_saliency=None if negative is None else negative[items],
    )


def _same(expected: MomentOutput, found: MomentOutput, clip_mask: Tensor) -> None:
    num_clips = clip_mask.shape[1]
    pairs = [(expected.logits, found.logits), (expected.spans, found.spans)]
    assert (expected.negative_saliency is None) == (found.negative_saliency is None)
    for name in ("saliency", "negative_saliency"):
        if getattr(expected, name) is not None:
            one, other = getattr(expected, name), getattr(found, name)
            pairs.append((one[clip_mask], other[:, :num_clips][clip_mask]))
    for one, other in pairs:
        torch.testing.assert_close(other, one, atol=2e-5, rtol=1e-4)


def _same_terms(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    assert expected.keys() == found.keys()
    for name, term in expected.items():
        torch.testing.assert_close(
            found[name], term, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_batches_of_the_contracts_are_as_they_say() -> None:
    """Negatives are of other sources, targets lie in their videos, and pairs where they should."""
    batch: MomentBatch = moment_batch()
    targets, negative = batch.targets, batch.negative
    assert targets is not None
    assert negative is not None
    assert (batch.sources != batch.sources[negative]).all()
    assert not (targets.relevant & ~batch.clip_mask).any()
    inside = targets.relevant.gather(1, targets.better) & ~targets.relevant.gather(1, targets.worse)
    assert inside[:, 0][targets.pair_mask[:, 0]].all()
