"""The demo at the smallest size: its commands follow each other, and a second run finds their work done."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from qle.cli.app import app
from qle.synthetic import demo
from tests.running import here

SIZE = ("--videos", "2", "--steps", "10")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small pictures; and one thread: two that wait for each other beside other work cost more than they bring."""
    monkeypatch.setattr(demo, "SIZE", 96)
    monkeypatch.setattr(demo, "SECONDS", 8)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, *arguments: str) -> None:
    assert not app(["demo", str(folder), *SIZE, "--quiet", *arguments], standalone_mode=False)


def test_every_stage_leaves_its_work_and_a_second_run_finds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "demo")
    first = capsys.readouterr().out
    typed = [line.split()[2] for line in first.splitlines() if line.startswith("$ qle ")]
    assert typed == ["prepare", "extract", "train-heads", "eval", "eval", "eval", "explain", "localize"]
    for made in ("made/annotations/test.jsonl", "cache/qle-cache.json", "run/config.json", "test.json", "report.html"):
        assert (tmp_path / "demo" / made).is_file()
    assert f"of {len(demo.AIMS)} aims are met" in first
    assert all(floor in first for floor in ("constant 0.500", "position ", "query rate ", "query blind ", "centre "))

    kept = (tmp_path / "demo" / "run" / "model.safetensors").stat().st_mtime_ns
    run(tmp_path / "demo", "--json")
    again = capsys.readouterr()
    assert "0 of them made now" in again.err
    assert "\n0 rows written" in again.err
    assert "finished before" in again.err
    assert (tmp_path / "demo" / "run" / "model.safetensors").stat().st_mtime_ns == kept
    _is_whole(json.loads(again.out), tmp_path / "demo")


def _is_whole(found: dict[str, Any], folder: Path) -> None:
    assert len(found["aims"]) == len(demo.AIMS)
    for one in found["aims"]:
        assert one["is_met"] == (one["value"] is not None and one["value"] >= one["aim"]["at_least"])
        floors = (
            {"centre", "random", "fresh weights"} if one["aim"]["source"] == "pointing" else {"constant", "position"}
        )
        assert floors <= set(one["floors"])
    assert list(found["seconds"])[-1] == "localize"
    assert Path(found["report"]) == folder / "report.html"


def test_a_stage_that_fails_ends_the_demo_as_it_would_end_alone(tmp_path: Path) -> None:
    """A video that cannot be read: extraction says which, and nothing is trained on the rest."""
    (tmp_path / "made" / "videos").mkdir(parents=True)
    broken = here("demo", tmp_path, "--videos", "2", "--quiet")
    assert broken.returncode == 2
    assert "no folder of made-up videos" in broken.stderr
    assert not (tmp_path / "cache").exists()
