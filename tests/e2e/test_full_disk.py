"""Every command that writes, on a disk without room: one line that says so, and the same command goes on when there is some."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.full_disk import CANNOT_MOUNT
from tests.writing_commands import COMMANDS, placed

NAMESPACE = ("unshare", "--map-root-user", "--mount")
FULL = "No space left on device"

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def outcomes(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Of every command, at every size."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("no mount namespaces here, so no disk can be made to be full")
    folder = tmp_path_factory.mktemp("disk")
    (folder / "disk").mkdir()
    commands = placed(world, folder / "disk")
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"disk": str(folder / "disk"), "commands": commands}))
    line = [*NAMESPACE, sys.executable, "-m", "tests.full_disk", str(plan), str(folder / "outcomes.json")]
    ended = subprocess.run(line, check=False, capture_output=True, text=True, timeout=900)
    if ended.returncode == CANNOT_MOUNT:
        pytest.skip("nothing can be mounted here, so no disk can be made to be full")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads((folder / "outcomes.json").read_text())
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_error_and_the_command_goes_on_when_there_is_room(outcomes, name):
    """Nothing hangs, no traceback; at most three lines, which name the reason; and in the end it does what it is for."""
    for attempt in outcomes[name][:-1]:
        assert attempt["code"] == 3, attempt
        assert "Traceback" not in attempt["stderr"], attempt
        assert FULL.lower() in attempt["stderr"].lower(), attempt
        assert len([line for line in attempt["stderr"].splitlines() if line.strip()]) <= 3, attempt
    assert outcomes[name][-1]["code"] == 0, outcomes[name][-1]
