"""Settings: presets, --set, and dataclasses that take nothing that they do not know."""

import copy
import json
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qle.config
from qle.config import build_config, config_to_dict, load_preset, override, preset_names
from qle.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    lr: float = 1e-3
    steps: int = 10
    sizes: tuple[int, ...] = (1, 2)
    range_s: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    needed: str
    mixer: Literal["none", "ssm", "transformer"] = "ssm"
    is_fast: bool = False
    rate_fps: float | None = None
    limit: int | Literal["auto"] | None = "auto"
    note: str | None = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None


def build(**settings: Any) -> Outer:
    return build_config(Outer, {"needed": "x"} | settings, where="head")


def test_defaults_and_conversions_that_lose_nothing() -> None:
    assert build() == Outer(needed="x")
    built = build(rate_fps=2, inner={"lr": 1, "sizes": [3, 4, 5], "range_s": [0, 2]}, maybe={})
    assert isinstance(built.rate_fps, float)
    assert built.inner == Inner(lr=1.0, sizes=(3, 4, 5), range_s=(0.0, 2.0))
    assert built.maybe == Inner()
    assert build(inner=Inner(steps=3)).inner.steps == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"is_fas": True}, r"head: no setting 'is_fas'; did you mean is_fast\?\nsettings: needed, mixer"),
        ({"inner": {"steps": 1.5}}, r"head\.inner\.steps = 1\.5: expected int, got float"),
        ({"inner": {"lr": "fast"}}, r"head\.inner\.lr = 'fast': expected float, got str"),
        ({"inner": {"steps": True}}, r"steps = True: expected int, got bool"),
        ({"inner": 3}, r"head\.inner = 3: expected a table"),
        ({"inner": {"sizes": "12"}}, r"sizes = '12': expected a list"),
        ({"inner": {"sizes": [1, "b"]}}, r"sizes\[1\] = 'b': expected int"),
        ({"inner": {"range_s": [1]}}, r"range_s = \[1\]: expected 2 values"),
        ({"is_fast": 1}, r"is_fast = 1: expected bool"),
        ({"mixer": "lstm"}, r"mixer = 'lstm': choose one of none, ssm, transformer"),
        ({"limit": "lots"}, r"limit = 'lots': choose one of auto"),
        ({"rate_fps": "quick"}, r"rate_fps = 'quick': expected float"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**settings)


def test_a_setting_that_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"head: .*needed"):
        build_config(Outer, {}, where="head")


def test_none_is_said_with_a_word_where_it_cannot_be_a_text() -> None:
    """TOML has no null, and a preset that set a rate could otherwise not be undone by --set."""
    built = build(rate_fps="none", limit="none", maybe="none", mixer="none", note="none")
    assert (built.rate_fps, built.limit, built.maybe) == (None, None, None)
    assert (built.mixer, built.note) == ("none", "none")
    with pytest.raises(ConfigError, match="is_fast = 'none'"):
        build(is_fast="none")


floats = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(
    Inner, lr=floats, steps=st.integers(), sizes=st.lists(st.integers()).map(tuple), range_s=st.tuples(floats, floats)
)


@given(
    st.builds(
        Outer,
        needed=st.text(),
        mixer=st.sampled_from(["none", "ssm"]),
        is_fast=st.booleans(),
        rate_fps=st.none() | floats,
        limit=st.none() | st.just("auto") | st.integers(),
        note=st.none() | st.text(),
        inner=inners,
        maybe=st.none() | inners,
    )
)
def test_there_and_back_through_json(config: Outer) -> None:
    assert build_config(Outer, json.loads(json.dumps(config_to_dict(config))), where="x") == config


def test_override_values_are_toml_and_texts_may_stand_bare() -> None:
    settings = {"train": {"lr": 1.0, "steps": 5}, "head": {"name": "qle"}}
    before = copy.deepcopy(settings)
    assignments = [
        "train.lr=1e-3", "train.bf16 = true", "train.steps=7", "train.steps=8", "head.mixer=ssm", "new.deep.er=[1, 2]",
        'head.note="two words"', "text.name=openai/clip-vit-base-patch32", "text.path=C:\\models", "day=2024-01-01",
        "head.extra={a = 1, b = 'x'}", "text.id=007", "none.it=none",
    ]  # fmt: skip
    assert override(settings, assignments) == {
        "train": {"lr": 1e-3, "steps": 8, "bf16": True},
        "head": {"name": "qle", "mixer": "ssm", "note": "two words", "extra": {"a": 1, "b": "x"}},
        "new": {"deep": {"er": [1, 2]}},
        "text": {"name": "openai/clip-vit-base-patch32", "path": "C:\\models", "id": "007"},
        "day": "2024-01-01",
        "none": {"it": "none"},
    }
    assert settings == before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.lr", "expected name.name=value"),
        ("=3", "expected name.name=value"),
        ("train..lr=3", "expected name.name=value"),
        ("train.l r=3", "expected name.name=value"),
        ("train.lr=", "not a TOML value"),
        ("train.lr=[1, 2", "not a TOML value"),
        ("note=two words", "quote texts with spaces"),
        ('note="open', "not a TOML value"),
        ("a=1\nb=2", "expected one value"),
        ("train=3", "train is a table of settings"),
        ("train.lr.x=3", "train.lr is a value, not a table"),
    ],
)
def test_assignments_that_say_nothing_clear(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override({"train": {"lr": 1.0}}, [assignment])


names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=6)
json_values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | floats | st.text(string.printable),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(names, min_size=1, max_size=4), json_values)
def test_any_value_arrives(path: list[str], value: Any) -> None:
    found: Any = override({}, [f"{'.'.join(path)}={json.dumps(value)}"])  # these values are written alike in TOML
    for name in path:
        found = found[name]
    assert found == value
    assert type(found) is type(value)


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "presets"
    (folder / "qle").mkdir(parents=True)
    (folder / "qle" / "small.toml").write_text('[head]\nname = "qle"\n[train]\nlr = 1e-3\n')
    (folder / "qle" / "wrong.toml").write_text("lr = = 3\n")
    monkeypatch.setattr(qle.config, "PRESETS", folder)
    return folder


def test_presets_by_name_and_by_path(presets: Path, tmp_path: Path) -> None:
    assert preset_names() == ("qle/small", "qle/wrong")
    expected = {"head": {"name": "qle"}, "train": {"lr": 1e-3}}
    assert load_preset("qle/small") == expected
    own = tmp_path / "own.toml"
    own.write_bytes((presets / "qle" / "small.toml").read_bytes())
    assert load_preset(str(own)) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qle/smal", r"unknown preset 'qle/smal'; did you mean qle/small\?\npresets: qle/small, qle/wrong"),
        ("../presets/qle/small", "unknown preset"),
        ("nowhere.toml", r"nowhere\.toml: cannot be read \(No such file.*\npresets: qle/small"),
        ("qle/wrong", r"wrong\.toml: not a TOML file \(.*line 1"),
    ],
)
def test_presets_that_are_not_there(presets: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset(name)


def test_a_preset_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_preset(str(tmp_path / "x.toml"))


@pytest.mark.parametrize("name", preset_names())
def test_every_packaged_preset_can_be_read(name: str) -> None:
    assert load_preset(name)
