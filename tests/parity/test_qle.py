"""The published QLE heads: official weights give the official numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qle.compat.qle import head_from_official
from qle.errors import CheckpointError
from qle.text.base import Words

SETS = ("qle", "qle-evidential")


@pytest.mark.parametrize("name", SETS)
def test_official_weights_give_official_numbers(golden: Path, name: str) -> None:
    config = json.loads((golden / name / "config.json").read_text())
    state = load_file(golden / name / "weights.safetensors")
    cases = sorted((golden / name).glob("case-*.safetensors"))
    assert cases, f"no cases in {golden / name}"
    for path in cases:
        case = load_file(path)
        batch, num_rows, num_cells, _ = case["in.tokens"].shape
        head = head_from_official(state, num_heads=config["num_heads"], grid=(1, num_cells))
        times, mask = torch.arange(num_rows).double(), torch.ones(num_rows, dtype=torch.bool)
        for item in range(batch):
            text, text_mask = case["in.text"][item : item + 1], case["in.text_mask"][item : item + 1].bool()
            words = Words(states=text, mask=text_mask, sentence=text[:, 0])
            with torch.no_grad():
                reading = head.read_rows({"patch": case["in.tokens"][item][:, None]}, words, with_maps=True)
                features = case["out.fused"][item].mean(1)
                scores, evidence = head.temporal(reading.features, reading.raw_logit, times[None], mask[None])
            found = {
                "out.relevance_map": reading.relevance_map[0, :, 0],
                "out.raw_logit": reading.raw_logit[0],
                "out.temporal": scores[0][:, None] if evidence is None else evidence[0],
            }
            torch.testing.assert_close(reading.features[0], features, atol=1e-4, rtol=0)
            for key, value in found.items():
                torch.testing.assert_close(value, case[key][item], atol=1e-4, rtol=0, msg=f"{path.name} {key}")


def test_a_tensor_too_many_or_too_few_is_named(golden: Path) -> None:
    state = load_file(golden / "qle" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="strange"):
        head_from_official(state | {"strange.weight": torch.zeros(1)}, grid=(4, 4))
    short = {name: tensor for name, tensor in state.items() if "fc_relevance.bias" not in name}
    with pytest.raises(CheckpointError, match=r"relevance\.bias"):
        head_from_official(short, grid=(4, 4))
    with pytest.raises(CheckpointError, match="not a checkpoint of the QLE code"):
        head_from_official({"a": torch.zeros(1)}, grid=(4, 4))


def test_parts_of_other_modules_and_parallel_prefixes_are_known(golden: Path) -> None:
    state = load_file(golden / "qle" / "weights.safetensors")
    whole = {f"module.{name}": tensor for name, tensor in state.items()}
    whole |= {"module.vision_backbone.cls_token": torch.zeros(1), "module.text_encoder.x": torch.zeros(1)}
    head = head_from_official(whole, grid=(4, 4))
    torch.testing.assert_close(head.relevance.weight, state["language_guided_head.fc_relevance.weight"])
