"""Settings: defaults in a frozen dataclass, a preset over them, `--set a.b=c` over that; unknown names never pass silently.

presets/<name>.toml -> nested dict -> with --set ... -> build_config(SomeConfig, dict) -> frozen dataclass -> JSON of the run

TOML has no word for None: where a setting may be None and cannot be a text, "none" means it.
"""

import copy
import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from qle.errors import ConfigError
from qle.inputs import decode_text, read_input_bytes

Config = TypeVar("Config")

PRESETS = Path(str(files("qle"))) / "presets"


def load_plugin(where: str) -> Any:
    """What "module:name" stands for, imported now: tables of plug-ins hold such texts, so that
    reading a table imports nothing."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def preset_names() -> tuple[str, ...]:
    """Every preset of the package, e.g. "qle/default"."""
    return tuple(sorted(path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.toml")))


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset of the package, or of the TOML file that a path ending in .toml names."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in (names := preset_names()):
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"unknown preset {name!r}{hint}\npresets: {', '.join(names)}; or a path that ends in .toml"
            )
        path = PRESETS / f"{name}.toml"
    try:
        return tomllib.loads(decode_text(read_input_bytes(path)))
    except OSError as error:
        raise ConfigError(
            f"preset {path}: cannot be read ({error.strerror})\npresets: {', '.join(preset_names())}"
        ) from error
    except (ValueError, RecursionError) as error:  # TOML with an error in it, or not even text
        raise ConfigError(f"preset {path}: not a TOML file ({error})") from error


def override(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`settings` with "a.b=value" over them, later ones last; `settings` itself stays as it is. Values are TOML, and a text
    without a space, quote or bracket may stand bare: train.lr=1e-3, heads.mixer=ssm, data.streams=["patch"]."""
    result = copy.deepcopy(dict(settings))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
            raise ConfigError(f"--set {assignment}: expected name.name=value, e.g. train.lr=1e-3")
        table = result
        for depth, part in enumerate(parts[:-1], start=1):
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: {'.'.join(parts[:depth])} is a value, not a table of settings")
        value = _parse(text.strip(), assignment)
        if isinstance(table.get(parts[-1]), dict) and not isinstance(value, dict):
            raise ConfigError(f"--set {assignment}: {key.strip()} is a table of settings: set one of them by its name")
        table[parts[-1]] = value
    return result


def _parse(text: str, assignment: str) -> Any:
    if re.fullmatch(r"[^\s\"'\[\]{}#=,]+", text):
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
        return value if isinstance(value, bool | int | float) else text  # a date is a text here
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'--set {assignment}: not a TOML value ({error})\nquote texts with spaces or brackets: name="some text"'
        ) from error
    if table.keys() != {"value"}:
        raise ConfigError(f"--set {assignment}: expected one value")
    return table["value"]


def build_config(cls: type[Config], settings: Mapping[str, Any], *, where: str) -> Config:
    """An instance of a keyword-only dataclass. Values are converted where that loses nothing (1 -> 1.0, list -> tuple);
    a wrong name or type is a ConfigError that begins with `where`."""
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}: no setting {name!r}{hint}\nsettings: {', '.join(names)}")
    values = {name: _convert(hints[name], value, f"{where}.{name}") for name, value in settings.items()}
    try:
        return cls(**values)
    except TypeError as error:  # a field without a default was not given
        raise ConfigError(f"{where}: {error}") from error


def config_to_dict(config: Any) -> dict[str, Any]:
    """What `build_config` reads back; plain JSON values."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(kind), value, where)
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ConfigError(f"{where} = {value!r}: choose one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        return _convert_tuple(typing.get_args(kind), value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r}: expected a table of settings")
        return build_config(kind, value, where=where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and not (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        raise ConfigError(f"{where} = {value!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    has_none = type(None) in members
    if value is None and has_none:
        return None
    kinds = [member for member in members if member is not type(None)]
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, where)
        except ConfigError:
            continue
    if value == "none" and has_none and not _takes_text(kinds[-1]):
        return None
    return _convert(kinds[-1], value, where)


def _convert_tuple(members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{where} = {value!r}: expected a list")
    kinds = [members[0]] * len(value) if len(members) == 2 and members[1] is ... else list(members)
    if len(kinds) != len(value):
        raise ConfigError(f"{where} = {value!r}: expected {len(kinds)} values")
    return tuple(
        _convert(kind, entry, f"{where}[{index}]") for index, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


def _takes_text(kind: Any) -> bool:
    return kind in (str, Any) or "none" in typing.get_args(kind)
