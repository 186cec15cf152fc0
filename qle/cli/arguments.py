"""What every argument of every command must be, before the command sees it.

    words of the command line -> App.command -> ConfigError, or the same words to typer

A group of commands is an `App` instead of a typer.Typer, and each of its commands has these checks for nothing:

* an address such as s3://bucket/x is no path: pathlib would make the folder `s3:` of it;
* text that is not valid UTF-8 cannot be written into a record or a result. Names of files may be anything.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from qle.cli.console import visible
from qle.errors import ConfigError
from qle.inputs import refuse_address

KEYS_AND_WORDS = frozenset({"query", "video_id"})
"""Parameters, by their names in Python, that hold no path but what may well be an address: queries, and keys of videos."""
PATHS_AS_TEXT = frozenset({"inputs", "videos", "video"})
"""Parameters that hold paths or patterns of paths as texts, since a pattern is no path yet."""


class Command(TyperCommand):
    """A command that looks at its words before they are turned into paths and numbers, and at what is left as text."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for name, label in self._labels():
            for text in _texts(words.get(name)) if name not in KEYS_AND_WORDS else ():
                refuse_address(label, text)
        rest = super().parse_args(ctx, args)
        for name, label in self._labels():
            for text in _texts(ctx.params.get(name)) if name not in PATHS_AS_TEXT else ():
                _refuse_no_unicode(label, text)
        return rest

    def _labels(self) -> Iterable[tuple[str, str]]:
        """Every parameter by its name in Python, with the name that the user knows."""
        for parameter in self.params:
            name, option = str(parameter.name), parameter.opts[0]
            yield name, option if option.startswith("-") else name.upper()


class Group(TyperGroup):
    """A group that says what was wrong with the words of a command line without what a terminal would obey: the shell may have
    put a name of a file there."""

    def make_context(self, *args: Any, **named: Any) -> Any:
        with _escaped():
            return super().make_context(*args, **named)

    def invoke(self, ctx: Any) -> Any:
        with _escaped():
            return super().invoke(ctx)


@contextmanager
def _escaped() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # what is wrong with the words; typer names no class for all of them
            error.message = visible(error.message)  # type: ignore[attr-defined]
        raise


class App(typer.Typer):
    """A group of commands, each of them a `Command`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"cls": Group} | options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, **{"cls": Command} | options)


def _texts(value: Any) -> Iterable[str]:
    """The texts among the values of a parameter, which may be repeated."""
    if isinstance(value, str):
        return [value]
    return [text for part in value for text in _texts(part)] if isinstance(value, list | tuple) else []


def _refuse_no_unicode(label: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{label} {text!a}: not valid UTF-8 at character {error.start + 1}\ntype it again in a terminal that is set to UTF-8"
        ) from error
