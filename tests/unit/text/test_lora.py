"""LoRA: only the adapters move, the base does not change by a bit, and dropout is the adapters' alone."""

from pathlib import Path

import pytest
import torch

from qle.errors import ConfigError
from qle.text import LoraSettings, TextRequest, build_text_encoder
from tests.small_models import bert_folder, clip_pair_folder, t5_folder

pytestmark = pytest.mark.slow

QUERIES = ["a green polyp", "water jet, then the polyp"]
FOLDERS = {"clip": clip_pair_folder, "bert": bert_folder, "t5": t5_folder}


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return FOLDERS[request.param](tmp_path)


def build(folder: Path, **lora):
    return build_text_encoder(TextRequest(name=str(folder), lora=LoraSettings(**lora)))


def test_training_changes_the_adapters_and_not_one_bit_of_the_base(folder: Path) -> None:
    encoder = build(folder).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = (encoder(QUERIES).sentence[0] - encoder(QUERIES).sentence[1]).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]) is ("lora_" not in name), name
    assert {name for name in before if "lora_" in name} == set(encoder.train_state())


def test_fresh_adapters_change_nothing_and_come_from_the_seed(folder: Path) -> None:
    plain = build_text_encoder(TextRequest(name=str(folder)))
    torch.manual_seed(1)
    first = build(folder)
    state = torch.get_rng_state()
    second = build(folder)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(first(QUERIES).states, plain(QUERIES).states)
    for name, tensor in first.train_state().items():
        assert torch.equal(tensor, second.train_state()[name])
    assert first.spec()["weights"] == plain.spec()["weights"]


def test_dropout_is_the_adapters_alone(folder: Path) -> None:
    encoder = build(folder, dropout=0.5)
    encoder.load_train_state({name: tensor + 0.5 for name, tensor in encoder.train_state().items()})
    assert torch.equal(encoder(QUERIES).states, encoder(QUERIES).states)
    parent = torch.nn.Sequential(encoder).train()
    training = {name.rpartition(".")[2] for name, module in encoder.tower.named_modules() if module.training}
    assert training <= {"lora_dropout", "default"}
    assert not torch.equal(encoder(QUERIES).states, encoder(QUERIES).states)
    parent.eval()
    assert torch.equal(encoder(QUERIES).states, encoder(QUERIES).states)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"r": 0}, "lora.r = 0"), ({"alpha": 0}, "alpha"), ({"dropout": 1.0}, "dropout"), ({"targets": ()}, "targets")],
)
def test_settings_out_of_range(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraSettings(**settings)
