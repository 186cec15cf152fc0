"""The parity tests know no number of the collection that we work with: they pass on others, and fail on what is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden_sets import READERS, folder
from tests.other_collections import make_collection

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = tuple(f"{kind}-x" for kind in READERS)
"""A set of every system that the tests know."""


def run_parity(collection: Path, *tests: str) -> tuple[int, str]:
    """Exit status and last line of pytest over these files of tests/parity."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", "--tb=short", *tests]
    environment = {**os.environ, "QLE_GOLDEN": str(collection), "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(2, 8))])
def test_a_collection_with_other_sets_sizes_options_and_names_passes(tmp_path: Path, seed: int) -> None:
    make_collection(tmp_path / "golden", seed, NAMES)
    (tmp_path / "golden" / "nobody-knows-this-one").mkdir()
    status, told = run_parity(tmp_path / "golden", "tests/parity")
    assert status == 0, told
    assert "failed" not in told


def test_a_collection_that_names_nothing_known_fails(tmp_path: Path) -> None:
    (tmp_path / "golden" / "another-system").mkdir(parents=True)
    status, told = run_parity(tmp_path / "golden", "tests/parity/test_collection.py")
    assert status == 1, told
    assert "another-system" in told


def test_a_set_that_is_known_and_cannot_be_read_fails(tmp_path: Path) -> None:
    """With a case of a new kind, without cases, with tensors too few: never passed over."""
    make_collection(tmp_path / "golden", 2, ("qle",))
    (case,) = (tmp_path / "golden" / "qle").glob("case-*")
    case.rename(tmp_path / "golden" / "qle" / "other.safetensors")
    status, told = run_parity(tmp_path / "golden", "tests/parity/test_collection.py")
    assert status == 1, told
    assert "no cases in" in told


def test_without_the_folder_everything_skips(tmp_path: Path) -> None:
    status, told = run_parity(tmp_path / "nowhere", "tests/parity/test_collection.py")
    assert status == 0, told
    assert "skipped" in told or "s" in told.splitlines()[0]


def test_the_folder_that_we_work_with_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLE_GOLDEN", "/somewhere")
    assert folder() == Path("/somewhere")
