"""Settings: what presets and assignments come down to, and what is refused."""

from pathlib import Path

import pytest

from qle.config import load_preset, override, preset_names
from qle.errors import ConfigError
from qle.heads.qle.head import QleConfig
from qle.text import LoraSettings
from qle.train.config import TrainConfig
from qle.train.request import Settings, TrainRequest, resolve


def resolved(*assignments: str, preset: str | None = None) -> Settings:
    tree = override(load_preset(preset) if preset else {}, assignments)
    return resolve(
        TrainRequest(cache=Path("c"), annotations=Path("a"), val=Path("v"), out=Path("o"), head="qle", settings=tree)
    )


@pytest.mark.parametrize("preset", [name for name in preset_names() if name.startswith("qle/")])
def test_every_preset_of_the_head_is_made_of_settings_that_exist(preset):
    settings = resolved(preset=preset)
    assert settings.to_json()["head"]["name"] == "qle"


def test_the_default_preset_is_the_defaults():
    assert resolved(preset="qle/default") == resolved()


def test_the_published_preset_is_the_published_head():
    settings = resolved(preset="qle/published")
    assert settings.head == QleConfig.published(hidden=3072)
    assert settings.text.lora == LoraSettings(r=8, alpha=16, dropout=0.4)
    assert settings.data.windows_per_batch * settings.train.accumulation == 192


def test_one_seed_decides_everything_that_is_drawn():
    assert resolved("train.seed=7").text.seed == 7
    assert resolved("train.seed=7", "text.seed=1").text.seed == 1
    assert resolved("train.seed=7").with_seed(8).train.seed == 8


def test_settings_survive_the_way_through_json():
    settings = resolved("text.lora.r=4", "data.rate_fps=2", "head.temporal=ssm", preset="qle/cholec80")
    tree = settings.to_json()
    again = resolve(
        TrainRequest(cache=Path("c"), annotations=Path("a"), val=Path("v"), out=Path("o"), head="qle", settings=tree)
    )
    assert again == settings


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("tarin.lr=1", "no settings 'tarin': they begin with"),
        ("train.lrr=1", "train: no setting 'lrr'; did you mean lr"),
        ("train.lr=0", r"train\.lr = 0"),
        ("train.steps=0", r"train\.steps = 0: expected 1 or more"),
        ("train.ema_decay=1.0", "expected 0 or more, and below 1"),
        ("train.precision=float16", "choose one of auto, float32, bfloat16"),
        ("train.schedule=linear", "choose one of cosine, constant, step"),
        ("train.decay=none", "choose one of matrices, all"),
        ("train.select=accuracy", "choose one of mAP, mIoU, R1@0.3, R1@0.5"),
        ("train.betas=[0.9,1.0]", r"train\.betas = \[0\.9, 1\.0\]: expected two numbers"),
        ("train.betas=[0.9]", "expected 2 values"),
        ("train.step_every=0", "expected 1 or more"),
        ("train.eval_epochs=0", "expected 1 or more"),
        ("head.dimm=8", "head: no setting 'dimm'"),
        ("head.name=mesm", "the settings are for head 'mesm'"),
        ("head=8", "head = 8: expected a table"),
        ("data.window_rows=0", "expected 1 or more"),
    ],
)
def test_what_cannot_be_is_said(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolved(assignment)


def test_a_rate_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match="lr = nan"):
        TrainConfig(lr=float("nan"))
