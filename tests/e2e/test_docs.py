"""What the documentation tells people to type exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from qle.cli.app import app
from qle.config import preset_names
from qle.heads import HEADS
from tests.conftest import CHECKOUT

PAGES = (CHECKOUT / "README.md", *sorted(CHECKOUT.glob("docs/**/*.md")), *sorted(CHECKOUT.glob("examples/*/README.md")))
README = PAGES[0].read_text()
ROOT: Any = typer.main.get_command(app)


def shell_lines(text: str) -> list[str]:
    """Whole commands, as in the blocks that people copy."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if re.search(r"\bqle ", line)]


def mentions(text: str) -> list[str]:
    """Commands with some of their flags: in lines of code, and between backticks."""
    code = re.findall(r"^    (.*\bqle [a-z].*)$", text, re.M) + re.findall(r"`([^`\n]*\bqle [a-z][^`\n]*)`", text)
    return [*shell_lines(text), *code]


def words_of(line: str) -> list[str]:
    """What stands behind `qle`, e.g. in `accelerate launch -m qle train-heads ...`."""
    return re.split(r"\bqle ", line.partition("  #")[0], maxsplit=1)[1].split()


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command, and the words that are not its name."""
    found, rest = ROOT, list(words)
    while rest and hasattr(found, "commands") and rest[0] in found.commands:
        found = found.commands[rest.pop(0)]
    return found, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_and_have_the_flags_that_are_shown(page: Path) -> None:
    for line in mentions(page.read_text()):
        command, rest = find(words_of(line))
        assert not hasattr(command, "commands") or rest[:1] in ([], ["..."], ["DATASET"]), line
        flags = {flag for word in rest for flag in re.findall(r"--[a-z][a-z-]*", word)}
        # `qle prepare ... --skip-bad`: any of its commands
        some = command.commands.values() if hasattr(command, "commands") else [command]
        assert flags <= {option for one in some for parameter in one.params for option in parameter.opts}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_to_copy_are_whole(page: Path) -> None:
    """Nothing that is needed is missing, nothing is of the wrong type."""
    for line in shell_lines(page.read_text()):
        words = shlex.split(line, comments=True)
        command, rest = find(words[words.index("qle") + 1 :])
        with command.make_context("qle", rest):
            pass


def test_every_command_is_shown_somewhere() -> None:
    shown = {words_of(line)[0] for page in PAGES for line in mentions(page.read_text())}
    assert set(ROOT.commands) <= shown


def test_presets_of_the_documentation_exist() -> None:
    heads = "|".join(HEADS)
    for page in PAGES:
        named = re.findall(rf"`(?:--preset )?((?:{heads})/[a-z0-9-]+)`", page.read_text())
        assert set(named) <= set(preset_names()), page.name


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_that_the_documentation_names_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"`((?:qle|tests|docs|benchmarks)/[a-z0-9_/]+\.(?:py|md|toml))`", page.read_text()):
            assert (CHECKOUT / target).exists(), f"{page.name}: {target}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"make (\w+)", README) if target != "a")
    assert Path(CHECKOUT / ".ci/run").stat().st_mode & 0o111
