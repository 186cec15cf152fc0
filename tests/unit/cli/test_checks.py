"""Every line of the doctor has a fix where it falls short, and looking leaves nothing behind."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

import qle.backbones
from qle.backbones.trial import MODEL_FILES
from qle.cache.tools.trials import nearest_folder, try_filesystem
from qle.cli import checks as doctor
from qle.cli.app import app
from tests.small_m2crl import m2crl_file
from tests.small_models import clip_folder, vit_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> list[doctor.Check]:
    folder = tmp_path_factory.mktemp("doctor")
    found = doctor.checks(folder / "not" / "there" / "yet")
    assert list(folder.iterdir()) == []
    return found


@pytest.mark.slow
def test_every_shortfall_has_a_fix(checks: list[doctor.Check]) -> None:
    assert [check for check in checks if (check.status != "ok") != bool(check.fix)] == []
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.slow
def test_what_works_here_is_reported_as_working(checks: list[doctor.Check]) -> None:
    """The machine that runs the tests has the decoders and a usable disk, or half of the suite would fail."""
    status = {check.name: check.status for check in checks}
    needed = ["python", "packages", "decoder pyav", "file system: rename", "file system: mmap", "file system: leases"]
    assert {name: status[name] for name in needed} == dict.fromkeys(needed, "ok")


@pytest.mark.slow
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


def _backbone(asked: object) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.checks(backbone=str(asked)) if "backbone" in check.name}


@pytest.mark.parametrize(("make", "streams", "context"), [
    (lambda folder: "tiny", {"patch": [14, 14, 64], "frame": [64]}, "single"),
    (clip_folder, {"patch": [3, 3, 32], "frame": [24]}, "single"),
    (m2crl_file, {"patch": [3, 3, 64], "frame": [64], "clip": [64]}, "centre"),
], ids=["name", "folder", "file"])  # fmt: skip
def test_a_backbone_that_works_says_what_it_gives(tmp_path: Path, make, streams, context) -> None:
    asked = make(tmp_path)
    found = _backbone(asked)
    assert {check.status for check in found.values()} == {"ok"}
    assert found["backbone streams"].facts["streams"] == streams
    assert found["backbone forward"].facts["context"] == context
    assert str(asked) in found["backbone"].found


@pytest.mark.parametrize("lacking", MODEL_FILES)
def test_a_folder_that_lacks_a_file_says_which(tmp_path: Path, lacking: str) -> None:
    (vit_folder(tmp_path) / lacking).unlink()
    (found,) = _backbone(tmp_path).values()
    assert (found.status, found.facts) == ("fail", {"missing": [lacking]})
    assert lacking in found.found


def test_a_backbone_that_is_damaged_unknown_or_unreachable_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (vit_folder(tmp_path) / "model.safetensors").write_bytes(b"no tensors")
    (tmp_path / "weights.pth").write_bytes(b"no tensors")
    for asked in (tmp_path, tmp_path / "weights.pth", "tinny", "nobody/no-such-model"):
        (found,) = _backbone(asked).values()
        assert (found.status, bool(found.fix)) == ("fail", True), found


def test_a_package_that_a_backbone_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(qle.backbones.BACKBONES, "tiny", "no_such_package:Backbone")
    (found,) = _backbone("tiny").values()
    assert (found.status, found.fix) == ("fail", "pip install no_such_package")


def test_the_command_ends_with_3_where_the_backbone_will_not_work(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["doctor", "--backbone", str(tmp_path), "--json"])
    assert ended.exit_code == 3, ended.output
    assert [check["name"] for check in json.loads(ended.stdout)] == ["python", "packages", "backbone files"]
