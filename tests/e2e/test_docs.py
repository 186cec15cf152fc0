"""What the README tells people to type exists."""

import re
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.running import command

README = (CHECKOUT / "README.md").read_text()
BLOCKS = [line.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
SPANS = re.findall(r"`(qle [^`]+)`", README)
FLAGS: dict[tuple[str, ...], set[str]] = {}
for text in (*BLOCKS, *SPANS):
    if match := re.match(r"qle ((?:cache )?[a-z]+)", text):
        FLAGS.setdefault(tuple(match[1].split()), set()).update(re.findall(r"--[a-z-]+", text.partition("#")[0]))


@pytest.mark.parametrize("words", sorted(FLAGS), ids=" ".join)
def test_commands_of_the_readme_have_the_flags_that_it_shows(words):
    shown = command(*words, "--help")
    assert shown.returncode == 0
    assert {flag for flag in FLAGS[words] if flag not in shown.stdout} == set()


def test_links_of_the_documentation_lead_somewhere():
    for page in (CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_of_the_readme_exist():
    makefile = (CHECKOUT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"make (\w+)", README) if target != "a")
    assert Path(CHECKOUT / ".ci/run").stat().st_mode & 0o111
