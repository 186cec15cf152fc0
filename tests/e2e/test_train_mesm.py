"""MESM from the cache, with word vectors and with prepared words: learned, its words rebuilt, used again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qle.cli.app import app
from qle.data.annotations import Annotation, write_annotations
from qle.errors import CheckpointError, InputError
from qle.runs.load import load_run
from qle.text.stored import write_stored_words
from tests.planted_moments import CLIP_S, planted_cache, planted_features

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
NAMES = ("red", "green", "blue", "jet", "grasper")
NUM_TRAIN, NUM_VAL, PER_VIDEO = 32, 8, 3
SMALL = (
    *("head.dim=32", "head.num_heads=2", "head.hidden=64", "head.encoder_layers=1", "head.num_queries=4"),
    *("head.enhance_layers=1", "head.align_layers=1", "head.sentence_layers=1", "head.input_dropout=0.0"),
    *("head.dropout=0.0", "data.window_clips=32", "data.items_per_batch=16", "data.by_source=true"),
    *("train.precision=float32", "train.eval_every=60", "train.lr=6e-3"),
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A cache, annotations of its videos, and words for their queries."""

    root: Path
    cache: Path

    def train(self, out: Path, text: Path, *settings: str) -> dict[str, Any]:
        line = [
            "train-heads",
            "--cache",
            self.cache,
            "--stream",
            "planted+tef",
            "--head",
            "mesm",
            "--text-encoder",
            text,
        ]
        line += ["--annotations", self.root / "train.jsonl", "--val", self.root / "val.jsonl", "--out", out]
        line += ["--device", "cpu", "--track", "none", "--json", "-q"]
        app([*map(str, line), *[part for one in (*SMALL, *settings) for part in ("--set", one)]], standalone_mode=False)
        return json.loads((out / "metrics.json").read_text())["validation"]["metrics"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("made")
    videos, rows = {}, dict[str, list[Annotation]](train=[], val=[])
    for number in range(NUM_TRAIN + NUM_VAL):
        rng = np.random.default_rng([7, number])
        split, num_clips = "train" if number < NUM_TRAIN else "val", int(rng.integers(18, 29))
        starts = rng.integers(0, num_clips - 4, PER_VIDEO)
        stops = np.minimum(num_clips, starts + rng.integers(3, 8, PER_VIDEO))
        events = [*zip(starts.tolist(), stops.tolist(), rng.permutation(len(NAMES)).tolist(), strict=False)]
        video = f"{split}{number}"
        videos[video] = planted_features(num_clips, events, number)
        rows[split] += [
            Annotation(
                qid=f"{video}-{channel}", video=video, query=f"the {NAMES[channel]} one in the video",
                windows=((start * CLIP_S, stop * CLIP_S),), duration_s=num_clips * CLIP_S,
            )
            for start, stop, channel in events
        ]  # fmt: skip
    for split, annotations in rows.items():
        write_annotations(root / f"{split}.jsonl", annotations)
    return Made(root=root, cache=planted_cache(root, videos))


def test_it_learns_moments_and_words_with_word_vectors(made: Made, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["the", "one", "in", "video", *NAMES]
    lines = [f"{word} {' '.join(f'{number:.4f}' for number in rng.normal(size=12))}" for word in words]
    (tmp_path / "small.txt").write_text("\n".join(lines) + "\n")
    found = made.train(tmp_path / "run", tmp_path / "small.txt", "train.steps=120")
    overlap = found["moments"]["miou"]
    assert overlap["value"] > max(overlap["floors"].values()) + 0.12
    head = load_run(tmp_path / "run", CPU).head
    assert head.config.vocabulary[:2] == (1, 2)  # "the" twice a query, then those of every query
    assert len(head.config.vocabulary) == len(words)
    assert head.config.function_words == (1, 2, 3)
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    told = [row["loss/word"] for row in history if "loss/word" in row]
    assert told[-1] < 0.6 * told[0]


def test_prepared_words_may_grow_and_others_are_refused(made: Made, tmp_path: Path, capsys: Any) -> None:
    def prepared(path: Path, queries: list[str], seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        write_stored_words(path, {query: (rng.normal(size=(7, 12)).astype(np.float32), None) for query in queries})
        return path

    queries = [f"the {name} one in the video" for name in NAMES]
    words, run = prepared(tmp_path / "words.safetensors", queries), tmp_path / "run"
    made.train(run, words, "train.steps=4", "train.eval_every=4")
    assert not load_run(run, CPU).head.config.rebuilds_words
    prepared(words, [*queries, "the yellow one"])
    assert load_run(run, CPU).text.encoder(["the yellow one"]).states.shape == (1, 7, 12)
    with pytest.raises(InputError, match="is not among the 6"):
        load_run(run, CPU).text.encoder(["the pink one"])
    prepared(words, queries, seed=1)
    with pytest.raises(CheckpointError, match="its weights are not those of the run"):
        load_run(run, CPU)
