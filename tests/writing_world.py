"""Small films, caches and runs for the commands of tests/writing_commands.py to work on."""

import json
import shutil
from pathlib import Path

import numpy as np

from qle.backbones import BackboneRequest
from qle.cache.reader import open_cache
from qle.cli.app import app
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.synthetic.script import SyntheticConfig
from qle.synthetic.write import write_synthetic
from tests.e2e.test_localize import make_run
from tests.planted import planted_cache
from tests.planted_search import planted_corpus
from tests.writing_commands import ONE_STEP

RETRIEVER = ("head.dim=32", "head.num_frames=6", "head.trials=2", "text.dim=32", "data.pairs_per_batch=8")
LOCALIZER = (
    "head.dim=32",
    "head.num_heads=2",
    "head.hidden=64",
    "head.encoder_layers=1",
    "text.dim=16",
    "data.window_clips=32",
)


def make_world(folder: Path) -> None:
    """Films, caches and runs."""
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
