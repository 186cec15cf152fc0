"""Settings: defaults in a frozen dataclass, a preset over them, `--set a.b=c` over that; unknown names never pass silently.

presets/<name>.toml -> nested dict -> with --set ... -> build_config(SomeConfig, dict) -> frozen dataclass -> JSON of the run
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from qle.errors import ConfigError

Config = TypeVar("Config")


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


def _convert(kind: Any, value: Any, where: str) -> Any:  # noqa: C901 - one case a kind of type
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(kind):
            return None
        kinds = [part for part in typing.get_args(kind) if part is not type(None)]
        for part in kinds[:-1]:
            try:
                return _convert(part, value, where)
            except ConfigError:
                continue
        return _convert(kinds[-1], value, where)
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ConfigError(f"{where} = {value!r}: choose one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{where} = {value!r}: expected a list")
        args = typing.get_args(kind)
        inner = [args[0]] * len(value) if len(args) == 2 and args[1] is ... else list(args)
        if len(inner) != len(value):
            raise ConfigError(f"{where} = {value!r}: expected {len(inner)} values")
        return tuple(
            _convert(part, entry, f"{where}[{place}]")
            for place, (part, entry) in enumerate(zip(inner, value, strict=True))
        )
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
