"""The published QLE heads: official weights give the official numbers, whatever their sizes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qle.compat.qle import head_from_official
from qle.errors import CheckpointError
from qle.text.base import Words
from tests.golden_sets import golden_cases, golden_sets, read_config

pytestmark = pytest.mark.usefixtures("one_thread")


@golden_cases("qle")
def test_official_weights_give_official_numbers(golden_case: Path) -> None:
    case, config = load_file(golden_case), read_config(golden_case.parent)
    batch, num_rows, num_cells, _ = case["in.tokens"].shape
    state = load_file(golden_case.parent / "weights.safetensors")
    head = head_from_official(state, num_heads=config["num_heads"], grid=(1, num_cells))
    times, mask = torch.arange(num_rows).double(), torch.ones(num_rows, dtype=torch.bool)
    for item in range(batch):
        text, text_mask = case["in.text"][item : item + 1], case["in.text_mask"][item : item + 1].bool()
        words = Words(states=text, mask=text_mask, sentence=text[:, 0])
        with torch.no_grad():
            reading = head.read_rows({"patch": case["in.tokens"][item][:, None]}, words, with_maps=True)
            scores, evidence = head.temporal(reading.features, reading.raw_logit, times[None], mask[None])
        assert reading.relevance_map is not None
        found = {
            "out.fused": reading.features[0],
            "out.relevance_map": reading.relevance_map[0, :, 0],
            "out.raw_logit": reading.raw_logit[0],
            "out.temporal": scores[0][:, None] if evidence is None else evidence[0],
        }
        expected = {name: case[name][item] for name in case if name.startswith("out.")}
        expected["out.fused"] = expected["out.fused"].mean(1)  # the head keeps the features of a row, not of its cells
        _compare(found, expected)


def _compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@golden_sets("qle")
def test_sizes_are_read_off_the_tensors(golden_set: Path) -> None:
    config, state = read_config(golden_set), load_file(golden_set / "weights.safetensors")
    found = head_from_official(state, num_heads=config["num_heads"], grid=(2, 2)).config
    assert (found.num_layers, found.output == "evidence") == (config["num_layers"], config["temporal_outputs"] == 2)
    assert (found.confidence == "published") is config["confidence_fusion"]
    temporal = (
        "temporal_head.layers." if found.temporal == "published-ssm" else "temporal_head.transformer_encoder.layers."
    )
    layers = {name.removeprefix(temporal).partition(".")[0] for name in state if name.startswith(temporal)}
    assert found.temporal_layers == len(layers)


@golden_sets("qle")
def test_a_tensor_too_many_or_too_few_is_named(golden_set: Path) -> None:
    state, num_heads = load_file(golden_set / "weights.safetensors"), read_config(golden_set)["num_heads"]
    with pytest.raises(CheckpointError, match="strange"):
        head_from_official(state | {"strange.weight": torch.zeros(1)}, num_heads=num_heads, grid=(4, 4))
    short = {name: tensor for name, tensor in state.items() if "fc_relevance.bias" not in name}
    with pytest.raises(CheckpointError, match=r"relevance\.bias"):
        head_from_official(short, num_heads=num_heads, grid=(4, 4))
    with pytest.raises(CheckpointError, match="not a checkpoint of the QLE code"):
        head_from_official({"a": torch.zeros(1)}, grid=(4, 4))


@golden_sets("qle")
def test_parts_of_other_modules_and_parallel_prefixes_are_known(golden_set: Path) -> None:
    state, num_heads = load_file(golden_set / "weights.safetensors"), read_config(golden_set)["num_heads"]
    whole = {f"module.{name}": tensor for name, tensor in state.items()}
    whole |= {"module.vision_backbone.cls_token": torch.zeros(1), "module.text_encoder.x": torch.zeros(1)}
    head = head_from_official(whole, num_heads=num_heads, grid=(4, 4))
    torch.testing.assert_close(head.relevance.weight, state["language_guided_head.fc_relevance.weight"])
