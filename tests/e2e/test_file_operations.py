"""Every command that writes, killed before one of its file operations or with one that fails, and run again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.writing_commands import COMMANDS, placed

TRIALS = int(os.environ.get("QLE_TRIALS", "2"))
"""Operations of each command that are tried with each fault; 0: all of them."""
SEED = int(os.environ.get("QLE_SEED", "0"))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0 if TRIALS == 0 else 3600)]


@pytest.fixture(scope="module")
def outcomes(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """By command, what came of its trials."""
    folder = tmp_path_factory.mktemp("operations")
    plan, report = folder / "plan.json", folder / "outcomes.json"
    commands = placed(world, folder / "written")
    plan.write_text(
        json.dumps({"folder": str(folder / "written"), "seed": SEED, "trials": TRIALS, "commands": commands})
    )
    line = [sys.executable, "-m", "tests.file_operations", str(plan), str(report)]
    ended = subprocess.run(line, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    by_name: dict[str, list[dict[str, Any]]] = json.loads(report.read_text())
    return by_name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_is_finished_by_the_same_command_and_leaves_nothing(outcomes, name):
    for trial in outcomes[name]:
        if trial["fault"] == "kill":
            assert trial["first"]["code"] == -9, trial
            assert is_finished(trial["again"]), trial
            assert trial["is_same"], trial
            assert trial["left"] == [], trial


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_operation_that_fails_is_one_error_and_the_same_command_goes_on(outcomes, name):
    """What only cleans up may fail without a word."""
    for trial in outcomes[name]:
        if trial["fault"] != "kill":
            assert trial["first"]["code"] in (0, 2, 3, 4), trial
            assert "Traceback" not in trial["first"]["stderr"], trial
            assert len([line for line in trial["first"]["stderr"].splitlines() if line.strip()]) <= 3, trial
            assert is_finished(trial["again"]), trial
            assert trial["is_same"], trial
            assert trial["left"] == [], trial


def is_finished(ended: dict[str, Any]) -> bool:
    """Done now, or done before it was killed: then it says that it would write over what is there."""
    return ended["code"] == 0 or (ended["code"] == 2 and "already" in ended["stderr"])
