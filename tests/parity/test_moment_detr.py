"""Moment-DETR: official weights give the official numbers, in and out of training."""

from pathlib import Path

import pytest
import torch

from qle.compat.moment_detr import head_from_official, official_state
from qle.errors import CheckpointError
from tests.golden_moments import (
    check,
    check_gradients,
    check_matches,
    check_predictions,
    check_terms,
    golden_batch,
    load_cases,
    load_set,
    official_options,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SETS = ("moment-detr", "moment-detr-options")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("published", [True, False])
def test_official_weights_give_official_numbers(golden: Path, name: str, published: bool) -> None:
    """In both modes: the one fault is in a loss."""
    config, state = load_set(golden / name)
    head = head_from_official(state, official_options(config, published=published))
    seen = _middle(head)
    for where, case in load_cases(golden / name, "case-[!p]*").items():
        with torch.no_grad():
            output = head(golden_batch(case, has_negative=False))
        check_predictions(case, output, where)
        if "mid.hs" in case:
            check(seen["states"], case["mid.hs"], f"{where} states")
            check(seen["memory"], case["mid.memory"], f"{where} memory")
        last = len(output.logits) - 1
        if "out.proj_queries" in case:
            for layer in range(last + 1):
                part = "out" if layer == last else f"out.aux{layer}"
                check(output.extras["aligned_queries"][layer], case[f"{part}.proj_queries"], f"{where} {part} queries")
                check(output.extras["aligned_words"], case[f"{part}.proj_txt_mem"], f"{where} {part} words")
            if published:
                check(output.extras["aligned_clips"], case["out.proj_vid_mem"], f"{where} clips")


def _middle(head: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What encoder and decoder say, filled in by the next forward pass."""
    seen: dict[str, torch.Tensor] = {}
    head.encoder.register_forward_hook(lambda module, given, out: seen.update(memory=out))
    head.decoder.register_forward_hook(lambda module, given, out: seen.update(states=out))
    return seen


@pytest.mark.parametrize("name", SETS)
def test_training_makes_the_official_steps(golden: Path, name: str) -> None:
    config, state = load_set(golden / name)
    head = head_from_official(state, official_options(config, published=True))
    for where, case in load_cases(golden / name, "case-loss-*").items():
        batch = golden_batch(case, has_negative=False)
        head.zero_grad()
        output = head(batch)
        losses = head.loss(output, batch)
        losses.total.backward()
        check_matches(case, output, batch, head.config.losses.costs, where)
        check_terms(case, losses.terms, config["loss_weights"], where)
        check(losses.total.detach(), case["loss.total"], where)
        check_gradients(case, head, official_state, where)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_official_names_come_back(golden: Path, name: str, published: bool) -> None:
    """All of them, and the same numbers; where our head holds no table that theirs never uses, an empty one."""
    config, state = load_set(golden / name)
    back = official_state(head_from_official(state, official_options(config, published=published)))
    assert {key: part.shape for key, part in back.items()} == {key: part.shape for key, part in state.items()}
    unused = () if published else ("contrastive_align_projection_vid",)
    if not published and not config["use_text_position"]:
        unused = (*unused, "txt_position_embed")
    differ = {key for key in state if not torch.equal(back[key], state[key])}
    assert {key for key in differ if not key.startswith(unused)} == set()


def test_tensors_that_do_not_fit_are_named(golden: Path) -> None:
    config, state = load_set(golden / "moment-detr")
    options = official_options(config)
    with pytest.raises(CheckpointError, match="strange"):
        head_from_official(state | {"strange.weight": torch.zeros(1)}, options)
    short = {name: part for name, part in state.items() if name != "transformer.decoder.layers.1.norm3.bias"}
    with pytest.raises(CheckpointError, match=r"missing: transformer\.decoder\.layers\.1\.norm3\.bias"):
        head_from_official(short, options)
    with pytest.raises(CheckpointError, match="not a checkpoint of moment_detr"):
        head_from_official({"a": torch.zeros(1)}, options)
    with pytest.raises(CheckpointError, match="span_loss_type"):
        head_from_official(state | {"span_embed.layers.2.bias": torch.zeros(150)}, options)
    parallel = {f"module.{name}": part for name, part in state.items()}
    assert torch.equal(head_from_official(parallel, options).predict.label.weight, state["class_embed.weight"])
