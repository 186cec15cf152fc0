"""Caches and runs that an earlier commit (5747efb) wrote open today, and give the numbers that they gave then.

`tests/before` holds one small cache in each of its forms (zarr, hdf5, packed), a run of a head of rows and one of a head of
spans, and what `qle localize` and `qle eval` of that commit said with them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qle.cli.app import app
from tests.conftest import CHECKOUT

BEFORE = CHECKOUT / "tests" / "before"
RUNS = sorted(path.stem for path in BEFORE.glob("*.json"))
CACHES = ("cache", "hdf5", "packed")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: opening a cache may write its index."""
    return Path(shutil.copytree(BEFORE, tmp_path_factory.mktemp("earlier") / "before"))


def said(capsys: pytest.CaptureFixture, *line: object) -> Any:
    app([*map(str, line), "--device", "cpu", "--json", "-q"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_there_is_something_to_compare_with() -> None:
    assert RUNS
    assert all((BEFORE / name).is_dir() for name in (*CACHES, *RUNS))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("cache", CACHES)
def test_localize_says_what_it_said(before: Path, run: str, cache: str, capsys: pytest.CaptureFixture) -> None:
    expected = json.loads((before / f"{run}.json").read_text())["predictions"]
    queries = [part for query in dict.fromkeys(one["query"] for one in expected) for part in ("--query", query)]
    found = said(capsys, "localize", "--checkpoint", before / run, "--cache", before / cache, *queries, "--tracks")
    same(found["predictions"], expected)


@pytest.mark.parametrize("run", RUNS)
def test_eval_measures_what_it_measured(before: Path, run: str, capsys: pytest.CaptureFixture) -> None:
    expected = json.loads((before / f"{run}.json").read_text())["metrics"]
    line = (
        "--checkpoint",
        before / run,
        "--cache",
        before / "cache",
        "--annotations",
        before / "val.jsonl",
        "--bootstrap",
        0,
    )
    same(said(capsys, "eval", *line, "--bootstrap", 0)["metrics"], expected)


def same(found: Any, expected: Any, place: str = "") -> None:
    """Everything that was said then is said now; what is said besides is new."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            assert name in found, f"{place}.{name}"
            same(found[name], value, f"{place}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{place}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5), place
    else:
        assert found == expected, place
