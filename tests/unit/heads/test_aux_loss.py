"""Heads of the Moment-DETR family whose last layer alone is taught, as the official --no_aux_loss teaches them."""

import random

import pytest
import torch

from tests.golden_moments import golden_batch
from tests.other_collections.moments import moment_inputs, moment_targets, official_head

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["moment-detr", "qd-detr", "cg-detr"])
def test_without_it_only_the_last_layer_has_terms(kind: str) -> None:
    """It was ignored: with three layers the total was 14.6 instead of 5.0."""
    draw = random.Random(0)
    torch.manual_seed(0)
    inputs = moment_inputs(draw, 6, 5, most_words=6)
    batch = golden_batch(kind, inputs | moment_targets(inputs, draw))
    losses, counts = {}, {}
    for aux_loss in (True, False):
        torch.manual_seed(1)
        head = official_head(
            kind, random.Random(3), clip_dim=6, text_dim=5, decoder_layers=3, aux_loss=aux_loss,
            **({"aligns": True} if kind == "moment-detr" else {}),
        )  # fmt: skip
        losses[aux_loss] = head.loss(head(batch), batch)
        counts[aux_loss] = head.loss_counts(batch)
    early = {name for name in losses[True].terms if name.endswith(("_0", "_1"))}
    assert {"span_0", "giou_1", "label_0"} <= early
    assert losses[False].terms.keys() == losses[True].terms.keys() - early
    for name, value in losses[False].terms.items():
        torch.testing.assert_close(value, losses[True].terms[name])
    total = losses[True].total - torch.stack([losses[True].terms[name] for name in early]).sum()
    torch.testing.assert_close(losses[False].total, total)
    assert not any(name.endswith(("_0", "_1")) for name in counts[False])
