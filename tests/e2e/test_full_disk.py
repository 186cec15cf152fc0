"""Every command that writes, on a disk without room: one line that says so, and the same command goes on when there is some."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qle.backbones import BackboneRequest
from qle.cache.reader import open_cache
from qle.cli.app import app
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.synthetic.script import SyntheticConfig
from qle.synthetic.write import write_synthetic
from tests.e2e.test_localize import make_run
from tests.full_disk import CANNOT_MOUNT
from tests.planted import planted_cache
from tests.planted_search import planted_corpus

NAMESPACE = ("unshare", "--map-root-user", "--mount")
ONE_STEP = ("--device", "cpu", "--track", "none", "-q", "--set", "train.steps=1", "--set", "train.eval_every=1")
RETRIEVER = ("head.dim=32", "head.num_frames=6", "head.trials=2", "text.dim=32", "data.pairs_per_batch=8")
LOCALIZER = (
    "head.dim=32",
    "head.num_heads=2",
    "head.hidden=64",
    "head.encoder_layers=1",
    "text.dim=16",
    "data.window_clips=32",
)
FULL = "No space left on device"

COMMANDS: dict[str, tuple[str, ...]] = {
    "extract": ("extract", "W/made/videos", "--cache", "D/cache", "--backbone", "tiny", "--fps", "native", "--device", "cpu",
                "--workers", "1", "-q"),
    "extract hdf5": ("extract", "W/made/videos", "--cache", "D/cache", "--backbone", "tiny", "--fps", "native", "--device", "cpu",
                     "--workers", "1", "-q", "--store", "hdf5"),
    "prepare synthetic": ("prepare", "synthetic", "D/made", "--train", "2", "--val", "0", "--test", "0", "--composition", "0",
                          "--seconds", "8", "--size", "160"),
    "demo": ("demo", "D/demo", "--videos", "2", "--steps", "1", "-q"),
    "prepare intervals": ("prepare", "intervals", "W/intervals.csv", "--out", "D/out.jsonl", "--overwrite"),
    "prepare export": ("prepare", "export", "W/val.jsonl", "--to", "qvhighlights", "--out", "D/out.jsonl", "--overwrite"),
    "prepare to-triplets": ("prepare", "to-triplets", "W/val.jsonl", "--out", "D/out.csv", "--overwrite"),
    "prepare words": ("prepare", "words", "W/words", "--annotations", "W/val.jsonl", "--allow-missing", "--out",
                      "D/words.safetensors", "--overwrite"),
    "train-heads": ("train-heads", "--cache", "W/planted/cache", "--annotations", "W/planted/train.jsonl", "--val",
                    "W/planted/val.jsonl", "--out", "D/run", *ONE_STEP, "--set", "head.dim=64", "--set", "head.num_heads=2"),
    "localize": ("localize", "--checkpoint", "W/run", "--cache", "W/cache", "--query", "smoke", "--device", "cpu", "-q",
                 "--out", "D/out.json", "--report", "D/report.html", "--heatmaps", "D/maps"),
    "localize a film": ("localize", "--checkpoint", "W/run", "--video", "W/made/videos/test/000.mp4", "--query", "smoke",
                        "--device", "cpu", "-q", "--out", "D/out.json"),
    "explain": ("explain", "--checkpoint", "W/run", "--cache", "W/cache", "--device", "cpu", "-q", "--query", "smoke",
                "--video-id", "test/000.mp4", "--report", "D/report.html", "--heatmaps", "D/maps"),
    "explain a film": ("explain", "--checkpoint", "W/run", "--cache", "W/cache", "--device", "cpu", "-q", "--query", "smoke",
                       "--video-id", "test/000.mp4", "--overlay-video", "D/film.mp4"),
    "explain measures": ("explain", "--faithfulness", "--checkpoint", "W/run", "--cache", "W/cache", "--annotations",
                         "W/made/annotations/test.jsonl", "--max-rows", "2", "--device", "cpu", "-q", "--out", "D/out.json"),
    "eval": ("eval", "--checkpoint", "W/run", "--cache", "W/cache", "--annotations", "W/made/annotations/test.jsonl", "--device",
             "cpu", "-q", "--out", "D/out.json"),
    "search": ("search", "--query", "hook in the kitchen", "--cache", "D/cache", "--retriever", "W/retriever", "--localizer",
               "W/localizer", "--device", "cpu", "-q", "--out", "D/out.json"),
    "checkpoint export": ("checkpoint", "export", "W/localizer", "--out", "D/model.ckpt"),
    "checkpoint import": ("checkpoint", "import", "--from", "qd-detr", "W/model.ckpt", "--out", "D/run"),
    "cache convert": ("cache", "convert", "D/cache", "--store", "hdf5", "-q"),
    "cache convert int8": ("cache", "convert", "D/cache", "--dtype", "int8", "--to", "D/other", "-q"),
    "cache pack": ("cache", "pack", "D/cache", "-q"),
    "cache merge": ("cache", "merge", "W/cache", "--into", "D/cache", "-q"),
    "cache import": ("cache", "import", "D/cache", "--from", "W/features", "--name", "mine", "--fps", "1", "-q"),
    "cache export": ("cache", "export", "W/cache", "--to", "D/out", "--stream", "patch", "-q"),
    "cache export h5": ("cache", "export", "W/cache", "--to", "D/out.h5", "--stream", "patch", "-q"),
    "cache prune": ("cache", "prune", "D/cache", "--yes"),
    "cache verify": ("cache", "verify", "D/cache", "--deep"),
    "cache inspect": ("cache", "inspect", "D/cache", "--video", "test/000.mp4", "--picture", "D/strip.png"),
}  # fmt: skip
"""D: the full disk. W: what is there already."""

IN_PLACE = ("cache convert", "cache convert int8", "cache pack", "cache prune", "cache verify", "cache inspect")
COPIES = {"search": {"planted-search/cache": "cache"}, **{name: {"cache": "cache"} for name in IN_PLACE}}

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films, caches and runs on a disk with room."""
    folder = tmp_path_factory.mktemp("world")
    config = SyntheticConfig(num_train=0, num_val=0, num_test=2, num_composition=0, seconds=6, size=96)
    write_synthetic(folder / "made", config, num_processes=1)
    videos = folder / "made" / "videos"
    request = ExtractRequest(
        inputs=(str(videos),), cache=folder / "cache", root=videos, backbones=(BackboneRequest(name="tiny"),),
        sampling=Sampling(mode="fps", fps=4), tokens=TokenOptions(grid=7), devices=("cpu",), num_workers=1,
        durability="none",
    )  # fmt: skip
    extract(request, lambda progress: None)
    make_run(folder / "run", open_cache(folder / "cache").space())
    planted_cache(folder / "planted")
    corpus = planted_corpus(folder / "planted-search")
    shutil.copy(corpus.val, folder / "val.jsonl")
    for head, name, settings in (("tmass", "retriever", RETRIEVER), ("qd_detr", "localizer", LOCALIZER)):
        line = ["--cache", corpus.cache, "--annotations", corpus.train, "--val", corpus.val, "--out", folder / name]
        assignments = [part for setting in settings for part in ("--set", setting)]
        app(["train-heads", *map(str, line), "--head", head, *ONE_STEP, *assignments], standalone_mode=False)
    app(["checkpoint", "export", str(folder / "localizer"), "--out", str(folder / "model.ckpt")], standalone_mode=False)
    (folder / "intervals.csv").write_text("video,query,start,end\n" + "a.mp4,smoke fills the view,1,2\n" * 2000)
    for place in ("features", "words"):
        (folder / place).mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        np.savez(folder / "features" / f"{number}.npz", features=rng.normal(size=(200, 64)).astype(np.float32))
    for line in (folder / "val.jsonl").read_text().splitlines():
        words = rng.normal(size=(6, 64)).astype(np.float32)
        np.savez(
            folder / "words" / f"qid{json.loads(line)['qid']}.npz", last_hidden_state=words, pooler_output=words[0]
        )
    return folder


@pytest.fixture(scope="module")
def outcomes(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Of every command, at every size."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("no mount namespaces here, so no disk can be made to be full")
    folder = tmp_path_factory.mktemp("disk")
    (folder / "disk").mkdir()

    places = {"W": world, "D": folder / "disk"}

    def placed(part: str) -> str:
        return str(places[part[0]] / part[2:]) if part[1:2] == "/" and part[0] in places else part

    commands = {
        name: {
            "line": [placed(part) for part in line],
            "copies": {str(world / source): target for source, target in COPIES.get(name, {}).items()},
        }
        for name, line in COMMANDS.items()
    }
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
