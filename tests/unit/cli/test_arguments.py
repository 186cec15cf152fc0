"""Every argument of every command is checked before the command sees it: a walk over all of them, new ones included."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

from qle.cli.app import app
from qle.cli.arguments import KEYS_AND_WORDS, Command
from qle.errors import ConfigError
from qle.runtime import cache_folder

ADDRESS = "s3://bucket/x"


def _commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Words and command, of all that stand below a group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*above, name))
        else:
            yield (*above, name), command


GROUP = typer.main.get_command(app)
COMMANDS = dict(_commands(GROUP))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_address_is_refused_by_name_and_no_folder_is_made(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for parameter in COMMANDS[words].params:
        option = parameter.opts[0]
        if getattr(parameter, "is_flag", False) or parameter.name in KEYS_AND_WORDS:
            continue
        is_option = option.startswith("-")
        with pytest.raises(ConfigError) as caught:
            GROUP([*words, *([option] if is_option else []), ADDRESS], standalone_mode=False)
        # Of several positional arguments the first one takes the word.
        assert not is_option or str(caught.value).startswith(f"{option} ")
        assert f"{ADDRESS}: expected a path on this machine, got an address (s3://)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_one_that_checks_and_no_path_is_exempt(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert isinstance(command, Command)
    paths = {name for name, hint in get_type_hints(command.callback).items() if "Path" in str(hint)}
    assert not paths & KEYS_AND_WORDS


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("gs://bucket/x", "mount it"),
        ("memory://x", "mount it"),
        ("https://host/film.mp4", "copy it here"),
        ("simplecache::s3://bucket/x", "(s3://)"),
        ("file:///data/cache", "give the path alone: /data/cache"),
    ],
)
def test_the_message_says_what_to_give_instead(address: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        app(["extract", "--videos", address, "--cache", "cache"], standalone_mode=False)
    assert advice in str(caught.value)


def test_queries_and_keys_may_hold_addresses() -> None:
    """They get as far as the next thing that is missing."""
    with pytest.raises(ConfigError, match="name its folder"):
        app(["localize", "--checkpoint", "run", "--query", "http://x", "--video-id", "http://v"], standalone_mode=False)


def test_the_cache_of_the_environment_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLE_CACHE", ADDRESS)
    with pytest.raises(ConfigError, match="QLE_CACHE s3://"):
        cache_folder(None)


def test_text_that_is_no_unicode_is_refused_and_names_of_files_are_not() -> None:
    with pytest.raises(ConfigError, match=r"--query.*not valid UTF-8 at character 2"):
        app(["localize", "--checkpoint", "run", "--cache", "c", "--query", "a\udcff"], standalone_mode=False)
    with pytest.raises(ConfigError, match="name its folder"):
        app(["localize", "--checkpoint", "run\udcff", "--video-id", "a", "--query", "b"], standalone_mode=False)


def test_defaults_that_help_tells_are_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """`[default: 1]` bare in a help text is a style to rich, and vanished."""
    bare = {
        f"{' '.join(words)} {parameter.opts[0]}"
        for words, command in COMMANDS.items()
        for parameter in command.params
        if re.search(r"(?<!\\)\[default", getattr(parameter, "help", None) or "")
    }
    assert not bare
    with suppress(SystemExit):
        GROUP(["extract", "--help"], standalone_mode=False)
    told = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "'native' for every frame. [default: 1]" in told
