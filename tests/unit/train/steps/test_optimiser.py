"""Which numbers decay, how the rate moves, and that the state survives a way through plain tensors."""

import copy
from itertools import pairwise

import pytest
import torch

from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.text import LoraSettings, TextRequest, build_text_encoder
from qle.text.bank import QueryBank
from qle.train.config import TrainConfig
from qle.train.steps.model import TrainedModel, count_parameters
from qle.train.steps.optimiser import (
    build_optimiser,
    decayed_names,
    load_optimiser_tensors,
    optimiser_tensors,
    parameter_groups,
    rate_factor,
    set_rate,
)
from tests.small_models import bert_folder

pytestmark = pytest.mark.slow


def small_model(text_name: str = "tiny", lora: LoraSettings | None = None, **head: object) -> TrainedModel:
    text = build_text_encoder(TextRequest(name=text_name, lora=lora, dim=16 if text_name == "tiny" else None), "cpu")
    shapes = TokenShapes(streams={"patch": (2, 2, 8)}, text_dim=text.dim, sentence_dim=text.sentence_dim)
    settings = {"dim": 16, "num_layers": 1, "num_heads": 2, "temporal_layers": 1, "temporal_heads": 2, **head}
    return TrainedModel(build_head("qle", settings, shapes), text, QueryBank(text))


def test_decay_acts_on_matrices_and_spares_biases_norms_embeddings_and_rates():
    model = small_model(temporal="ssm")
    decayed = decayed_names(model)
    spared = model.trainable().keys() - decayed
    assert {"head.words.weight", "head.relevance.weight", "text.layer.qkv.weight"} <= decayed
    assert any(name.endswith("convolution.weight") for name in decayed)
    assert "text.pieces.weight" in spared  # the table of word pieces
    assert {name for name in spared if name.endswith(("log_rate", "skip"))}
    assert all(name.endswith("weight") for name in decayed)
    assert all("norm" not in name for name in decayed)
    assert all(name in spared for name, value in model.trainable().items() if value.ndim < 2)


def test_low_rank_adapters_do_not_decay_and_nothing_else_of_a_frozen_encoder_is_trained(tmp_path):
    model = small_model(str(bert_folder(tmp_path)), LoraSettings(r=2))
    adapters = {name for name in model.trainable() if name.startswith("text.")}
    assert adapters
    assert all("lora_" in name for name in adapters)
    assert not adapters & decayed_names(model)
    trained, frozen = count_parameters(model)["text"]
    assert trained == sum(model.trainable()[name].numel() for name in adapters)
    assert trained + frozen == sum(value.numel() for value in model.text.parameters())
    assert trained < frozen / 4


def test_groups_hold_every_trainable_parameter_once_with_its_own_rate():
    model = small_model()
    groups = parameter_groups(model, TrainConfig(lr=1e-3, text_lr=1e-4, weight_decay=0.1))
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(model.trainable())
    for group in groups:
        assert group.lr == (1e-4 if group.names[0].startswith("text.") else 1e-3)
        assert {group.weight_decay > 0} == {name in decayed_names(model) for name in group.names}


def test_the_rate_rises_on_a_line_and_falls_to_nothing():
    factors = [rate_factor(step, 100, 0.1) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert 0 < factors[-1] < 1e-3
    assert rate_factor(1, 1, 0.0) == 1.0


def test_the_rate_stays_or_falls_to_a_tenth_every_so_many_steps():
    constant = [rate_factor(step, 40, 0.1, schedule="constant") for step in range(1, 41)]
    assert constant == [0.25, 0.5, 0.75] + [1.0] * 37
    dropping = [rate_factor(step, 25, 0.0, schedule="step", steps_per_drop=10) for step in range(1, 26)]
    assert dropping == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 5)


def test_decay_may_act_on_all_that_is_trained():
    model = small_model()
    (head,), (text,) = (
        [group for group in parameter_groups(model, TrainConfig(decay="all")) if group.names[0].startswith(part)]
        for part in ("head.", "text.")
    )
    assert head.weight_decay == text.weight_decay == 0.05
    assert sorted((*head.names, *text.names)) == sorted(model.trainable())
    optimiser = build_optimiser(model, [head, text], (0.9, 0.999))
    assert all(group["betas"] == (0.9, 0.999) for group in optimiser.param_groups)


def test_a_step_after_the_way_through_tensors_is_the_same_step():
    model = small_model()
    groups = parameter_groups(model, TrainConfig())
    optimiser = build_optimiser(model, groups)
    for _ in range(2):
        take_step(model, optimiser)
    twin = copy.deepcopy(model)
    other = build_optimiser(twin, groups)
    load_optimiser_tensors(other, groups, optimiser_tensors(optimiser, groups))
    take_step(model, optimiser)
    take_step(twin, other)
    for name, value in model.trainable().items():
        assert torch.equal(value, twin.trainable()[name]), name


def take_step(model: TrainedModel, optimiser: torch.optim.Optimizer) -> None:
    set_rate(optimiser, 0.5)
    sum((value**2).sum() for value in model.trainable().values()).backward()
    optimiser.step()
    optimiser.zero_grad()
