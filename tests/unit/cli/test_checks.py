"""Every line of the doctor has a fix where it falls short, and looking leaves nothing behind."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from qle.cache.tools.trials import nearest_folder, try_filesystem
from qle.cli import checks as doctor


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> list[doctor.Check]:
    folder = tmp_path_factory.mktemp("doctor")
    found = doctor.checks(folder / "not" / "there" / "yet")
    assert list(folder.iterdir()) == []
    return found


def test_every_shortfall_has_a_fix(checks: list[doctor.Check]) -> None:
    assert [check for check in checks if (check.status != "ok") != bool(check.fix)] == []
    assert len({check.name for check in checks}) == len(checks)


def test_what_works_here_is_reported_as_working(checks: list[doctor.Check]) -> None:
    """The machine that runs the tests has the decoders and a usable disk, or half of the suite would fail."""
    status = {check.name: check.status for check in checks}
    needed = ["python", "packages", "decoder pyav", "file system: rename", "file system: mmap", "file system: leases"]
    assert {name: status[name] for name in needed} == dict.fromkeys(needed, "ok")


def test_result_is_plain_json(checks: list[doctor.Check]) -> None:
    assert json.loads(json.dumps([asdict(check) for check in checks]))[0]["name"] == "python"


def test_missing_package_fails_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_required", lambda: ["numpy", "no-such-package-here"])
    packages = next(check for check in doctor._packages() if check.name == "packages")
    assert packages.status == "fail"
    assert packages.fix == "pip install no-such-package-here"


def test_file_system_without_links_and_fsync_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    trials = {trial.name: trial for trial in try_filesystem(tmp_path)}
    assert "not supported" in trials["fsync"].problem
    assert trials["fsync"].is_fatal
    assert trials["hard links"].problem
    assert not trials["hard links"].is_fatal
    assert not trials["rename"].problem
    assert list(tmp_path.iterdir()) == []


def test_folder_without_write_permission_is_one_failure() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder that nobody may write to")
    (trial,) = try_filesystem(Path("/proc/self/cache"))
    assert trial.is_fatal
    assert "cannot be written to" in trial.problem


def test_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path
    assert nearest_folder(tmp_path / "file") == tmp_path
