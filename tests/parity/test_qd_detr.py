"""QD-DETR, with audio and without: official weights give the official numbers, or by default those of an item run alone."""

from pathlib import Path

import pytest
import torch

from qle.compat.qd_detr import head_from_official, official_state
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

SETS = ("qd-detr", "qd-detr-audio")
NO_SPANS = {"span_loss_coef": 0, "giou_loss_coef": 0, "label_loss_coef": 0}


@pytest.mark.parametrize("name", SETS)
def test_official_weights_give_official_numbers(golden: Path, name: str) -> None:
    config, state = load_set(golden / name)
    head = head_from_official(state, official_options(config, published=True))
    seen = _middle(head)
    for where, case in load_cases(golden / name, "case-*").items():
        with torch.no_grad():
            check_predictions(case, head(golden_batch(case, has_negative=True)), where)
        if "mid.hs" in case:
            clips, token = (part.chunk(2) for part in seen["memory"])
            found = {
                "memory": clips[0],
                "memory_neg": clips[1],
                "memory_global": token[0],
                "memory_global_neg": token[1],
            }
            found |= {"hs": seen["decoded"][0], "reference": seen["decoded"][1]}
            for part, value in found.items():
                check(value, case[f"mid.{part}"], f"{where} {part}")


def _middle(head: torch.nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What encoder and decoder say, filled in by the next forward pass."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    head.detr.encoder.register_forward_hook(lambda module, given, out: seen.update(memory=out))
    head.detr.decoder.register_forward_hook(lambda module, given, out: seen.update(decoded=out))
    return seen


@pytest.mark.parametrize("name", SETS)
def test_by_default_an_item_is_what_it_is_alone(golden: Path, name: str) -> None:
    """Where the official program shows some heads the mask of another item, numbers differ by up to 1.8."""
    config, state = load_set(golden / name)
    head = head_from_official(state, official_options(config))
    num_differing = 0
    for where, case in load_cases(golden / name, "case-[!l]*").items():
        batch = golden_batch(case, has_negative=False)
        with torch.no_grad():
            output = head(batch)
        for item in range(batch.num_items):
            solo = f"solo.{item}."
            if f"{solo}pred_logits" not in case:
                continue
            scores = case[f"{solo}saliency_scores"]
            check(output.logits[-1, item], case[f"{solo}pred_logits"], f"{where} {item} logits")
            check(output.spans[-1, item], case[f"{solo}pred_spans"], f"{where} {item} spans")
            check(output.saliency[item, : len(scores)], scores, f"{where} {item} saliency")
            num_differing += bool((case["out.saliency_scores"][item, : len(scores)] - scores).abs().max() > 0.01)
    assert num_differing


@pytest.mark.parametrize("name", SETS)
def test_training_makes_the_official_steps(golden: Path, name: str) -> None:
    config, state = load_set(golden / name)
    for where, case in load_cases(golden / name, "case-loss-*").items():
        has_spans = "target.spans" in case
        head = head_from_official(state, official_options(config, published=True, **({} if has_spans else NO_SPANS)))
        batch = golden_batch(case, has_negative=True)
        output = head(batch)
        losses = head.loss(output, batch)
        losses.total.backward()
        terms = losses.terms
        if has_spans:
            check_matches(case, output, batch, head.config.losses.costs, where)
        else:
            terms = {part: value for part, value in terms.items() if part.startswith("saliency")}
        check_terms(case, terms, config["loss_weights"], where)
        check(losses.total.detach(), case["loss.total"], where)
        check_gradients(case, head, official_state, where)


@pytest.mark.parametrize("name", ["case-loss-one", "case-loss-full-nopos"])
def test_without_padding_both_modes_train_alike(golden: Path, name: str) -> None:
    """The bounded form of the negative term has the same value."""
    config, state = load_set(golden / "qd-detr")
    case = load_cases(golden / "qd-detr", name)[name]
    head = head_from_official(state, official_options(config, published=False))
    batch = golden_batch(case, has_negative=True)
    losses = head.loss(head(batch), batch)
    check_terms(case, losses.terms, config["loss_weights"], name)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_official_names_come_back(golden: Path, name: str, published: bool) -> None:
    config, state = load_set(golden / name)
    back = official_state(head_from_official(state, official_options(config, published=published)))
    assert {key: part.shape for key, part in back.items()} == {key: part.shape for key, part in state.items()}
    is_table_held = published or config["use_text_position"]
    differ = {key for key in state if not torch.equal(back[key], state[key])}
    assert {key for key in differ if is_table_held or not key.startswith("txt_position_embed")} == set()


def test_tensors_that_do_not_fit_are_named(golden: Path) -> None:
    config, state = load_set(golden / "qd-detr")
    with pytest.raises(CheckpointError, match="strange"):
        head_from_official(state | {"strange": torch.zeros(1)}, official_options(config))
    with pytest.raises(CheckpointError, match="not a checkpoint of QD-DETR"):
        head_from_official({"a": torch.zeros(1)}, {})
    narrow = state | {"saliency_proj1.weight": torch.zeros(32, 31)}
    with pytest.raises(CheckpointError, match=r"saliency_proj1\.weight \(32, 31\) instead of \(32, 32\)"):
        head_from_official(narrow, official_options(config))
