"""Every preset is made of settings that exist, builds its head, and knows nothing of the machine that it was written on."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qle.config import PRESETS, config_to_dict, load_preset, preset_names
from qle.errors import ConfigError
from qle.heads import HEADS, build_head, head_class
from qle.heads.base import TokenShapes
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.retrieval.batches.config import RetrievalDataConfig
from qle.train.request import Settings, TrainRequest, resolve

pytestmark = pytest.mark.slow

SHAPES = {
    "rows": {"patch": (7, 7, 768), "frame": (768,)},
    "moments": {"clips": (2818,)},
    "retrieval": {"frames": (512,)},
}


def resolved(preset: str) -> Settings:
    tree = load_preset(preset)
    paths = {name: Path(name) for name in ("cache", "annotations", "val", "out")}
    return resolve(TrainRequest(head=tree["head"]["name"], settings=tree, **paths))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, part in value.items():
        yield from leaves(part, f"{path}.{name}" if path else name)


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_builds_its_head(preset):
    settings = resolved(preset)
    cls = head_class(settings.head_name)
    shapes = TokenShapes(streams=SHAPES[cls.task], text_dim=512, sentence_dim=512)
    head = build_head(settings.head_name, config_to_dict(settings.head), shapes)
    assert head.config == settings.head
    assert sum(parameter.numel() for parameter in head.parameters()) > 0


@pytest.mark.parametrize("preset", preset_names())
def test_presets_stand_under_the_name_of_their_head_and_carry_nothing_of_a_machine(preset):
    tree = load_preset(preset)
    assert preset.split("/")[0] == tree["head"]["name"]
    for name, value in leaves(tree):
        assert not name.startswith(("data.placement", "data.num_workers", "train.seed")), name
        if isinstance(value, str):
            assert not value.startswith(("/", ".", "~")), f"{name} = {value}"


def test_a_preset_that_is_named_as_a_head_is_told_apart():
    with pytest.raises(ConfigError, match=r"unknown head 'qd_detr/tacos'.*\n.*--preset qd_detr/tacos"):
        head_class("qd_detr/tacos")


def test_every_head_has_a_preset():
    assert {preset.split("/")[0] for preset in preset_names()} == set(HEADS)


@pytest.mark.parametrize("preset", preset_names())
def test_presets_say_where_they_come_from(preset):
    text = (PRESETS / f"{preset}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text[: text.index("[")].strip().splitlines()) >= 1
    tomllib.loads(text)


@pytest.mark.parametrize("preset", [name for name in preset_names() if not name.startswith("qle/")])
def test_published_recipes_are_what_was_published(preset):
    settings = resolved(preset)
    train = settings.train
    assert (train.decay, train.betas, train.ema_decay, train.patience) == ("all", (0.9, 0.999), 0.0, 0)
    if head_class(settings.head_name).task == "moments":
        assert isinstance(settings.data, MomentDataConfig)
        assert (train.weight_decay, train.clip_norm, train.warmup) == (1e-4, 0.1, 0.0)
        assert (settings.head.dim, settings.head.num_heads, settings.head.hidden) == (256, 8, 1024)
        assert not settings.head.published
    else:
        assert isinstance(settings.data, RetrievalDataConfig)
        assert (train.weight_decay, train.clip_norm, train.warmup) == (0.2, 1.0, 0.1)
