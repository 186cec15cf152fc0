"""One name that gives commands to a terminal, through every command that prints names: only text comes out."""

import json
import os
import pty
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qle.cache.spaces import SpaceFolder, create_space
from tests.running import here
from tests.tiny_cache import commit_video, tiny_spec

pytestmark = pytest.mark.slow

NAME = "a\x1b]0;owned\x07\x9b2J\r\u202egpj\u2066\u200f\x7f\nerror: all is lost"
"""Gives the window another title, rings, clears the screen, goes back to the beginning of the line, turns what follows around,
and goes on in another line."""
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
SHOWN = r"a\x1b]0;owned\x07\x9b2J\x0d\u202egpj\u2066\u200f\x7f"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a damaged video of that name, and beside it broken files of that name."""
    root = tmp_path_factory.mktemp("hostile")
    space = create_space(root / "cache", tiny_spec())
    commit_video(space, NAME, num_rows=4)
    commit_video(space, "b.mp4", num_rows=4)
    commit_video(create_space(root / "other", tiny_spec()), NAME, num_rows=4, seed=1)
    (root / "films").mkdir()
    (root / "films" / f"{NAME}.mp4").write_bytes(b"no film")
    (root / "features").mkdir()
    (root / "features" / f"{NAME}.npy").write_bytes(b"no array")
    np.save(root / "features" / "b.npy", np.ones((3, 4), np.float32))
    (root / f"{NAME}.csv").write_text(f'path,start\n"{NAME}",x\n')
    (root / f"{NAME}.json").write_text("{")
    return root


def _space(root: Path) -> SpaceFolder:
    return create_space(root / "cache", tiny_spec())


def _damage(root: Path) -> None:
    folder = _space(root).folder(NAME)
    assert folder
    (folder / "patch" / "c.0.0.0.0").write_bytes(b"short")


def _nothing(root: Path) -> None:
    """As it is."""


COMMANDS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "inspect": (_nothing, ("cache", "inspect", "cache")),
    "inspect a video": (_nothing, ("cache", "inspect", "cache", "--video", NAME)),
    "inspect no video": (_nothing, ("cache", "inspect", "cache", "--video", f"{NAME}x")),
    "verify": (_damage, ("cache", "verify", "cache", "--deep")),
    "prune": (_damage, ("cache", "prune", "cache", "--damaged", "--yes")),
    "convert": (_damage, ("cache", "convert", "cache", "--store", "hdf5")),
    "pack": (_damage, ("cache", "pack", "cache")),
    "merge": (_nothing, ("cache", "merge", "other", "--into", "cache")),
    "relink": (_nothing, ("cache", "relink", "cache", "--films", "films")),
    "import": (_nothing, ("cache", "import", "new", "--from", "features", "--name", "x", "--fps", "1")),
    "export": (_nothing, ("cache", "export", "cache", "--to", f"{NAME} out")),
    "extract": (_nothing, ("extract", "--videos", "films", "--backbone", "tiny", "--cache", "new", "--device", "cpu")),
    "a manifest": (_nothing, ("extract", "--videos", f"{NAME}.csv", "--backbone", "tiny", "--cache", "new")),
    "no cache": (_nothing, ("cache", "verify", NAME)),
    "no run": (_nothing, ("localize", "--checkpoint", NAME, "--cache", "cache", "--query", NAME)),
    "a file of queries": (
        _nothing,
        ("localize", "--checkpoint", NAME, "--cache", "cache", "--queries", f"{NAME}.json"),
    ),
    "annotations": (_nothing, ("eval", "--checkpoint", NAME, "--cache", "cache", "--annotations", f"{NAME}.json")),
    "an option": (_nothing, ("cache", "verify", f"--{NAME}")),
    "a command": (_nothing, ("cache", NAME)),
    "too many words": (_nothing, ("cache", "verify", "cache", NAME)),
    "a choice": (_nothing, ("cache", "convert", "cache", "--store", NAME)),
    "a dry run": (_nothing, ("extract", "--videos", "films", "--backbone", "tiny", "--cache", "new", "--dry-run")),
}


SILENT = ("inspect",)
"""Prints no names."""
TABLES = ("verify", "prune", "convert", "pack", "merge", "relink", "import")
"""In a cell of a table a line end is a character like any other."""


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_passes_a_name_on_as_it_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """ESC and the like came out of `extract`'s failures and progress, `inspect --video`, `verify`, `prune` and manifests."""
    root = Path(shutil.copytree(made, tmp_path / "root"))
    monkeypatch.chdir(root)
    prepare, words = COMMANDS[name]
    prepare(root)
    done = here(*words)
    printed = done.stdout + done.stderr
    assert not RAW.search(printed), printed
    assert (r"\x1b]0;" in printed) == (name not in SILENT), printed
    if name in TABLES:
        assert r"\x7f\nerror: all is lost" in printed


def test_json_says_the_name_exactly(made: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "root"))
    _damage(root)
    done = here("cache", "verify", root / "cache", "--json")
    assert [finding["key"] for finding in json.loads(done.stdout)["findings"]] == [NAME]
    assert not RAW.search(done.stdout)


@pytest.mark.slow
def test_a_real_terminal_gets_nothing_but_its_own_commands(made: Path, tmp_path: Path) -> None:
    """The progress bar moves the cursor by commands of its own; none of the name is among them."""
    root = Path(shutil.copytree(made, tmp_path / "root"))
    _damage(root)
    read, write = pty.openpty()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "qle", "cache", "verify", str(root / "cache"), "--deep"],
        {**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)],
    )
    os.close(write)
    shown = b""
    while True:
        try:
            part = os.read(read, 65536)
        except OSError:  # the terminal of a process that has ended
            break
        if not part:
            break
        shown += part
    os.close(read)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    text = shown.decode()
    assert SHOWN[:20] in text
    own = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")
    assert not RAW.search(own), own
