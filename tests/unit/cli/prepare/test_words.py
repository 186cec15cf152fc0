"""`qle prepare words`: from features of queries to an encoder that knows them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from qle.cli.app import app
from qle.data.annotations import Annotation, write_annotations
from qle.errors import ConfigError, InputError, QleError
from qle.text import TextRequest, build_text_encoder
from tests.small_models import clip_pair_folder

pytestmark = pytest.mark.slow

QUERIES = {"7": "a polyp", "8": "water jet", "9": "a polyp"}


def run(*words: str | Path) -> Any:
    result = CliRunner().invoke(app, ["prepare", "words", *[str(word) for word in words]])
    if isinstance(result.exception, QleError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Of three qids, two of which ask the same, and annotations of them in two files."""
    folder = tmp_path / "features"
    folder.mkdir()
    for number, qid in enumerate(QUERIES):
        states = np.full((2 + number, 5), number + 1, dtype=np.float32)
        np.savez(folder / f"qid{qid}.npz", last_hidden_state=states, pooler_output=np.arange(5, dtype=np.float32))
    for name, qids in (("train", ("7", "8")), ("val", ("9",))):
        rows = [Annotation(qid=qid, video="v", query=QUERIES[qid], windows=((0.0, 2.0),)) for qid in qids]
        write_annotations(tmp_path / f"{name}.jsonl", rows)
    return folder


def test_features_become_an_encoder(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.safetensors"
    asked = ("--annotations", tmp_path / "train.jsonl", "--annotations", tmp_path / "val.jsonl", "--out", out)
    told = json.loads(run(features, *asked, "--json", "--quiet").stdout)
    assert {name: told[name] for name in ("num_queries", "dim", "sentence_dim", "max_words")} == {
        "num_queries": 2, "dim": 5, "sentence_dim": 5, "max_words": 3
    }  # fmt: skip
    assert "1 qids ask in the same words" in told["notes"][0]
    words = build_text_encoder(TextRequest(name=str(out)))(["a polyp", "water jet"])
    assert words.states[0].tolist() == [[1.0] * 5, [1.0] * 5, [0.0] * 5]
    torch.testing.assert_close(words.sentence[1], torch.arange(5) / 30**0.5)
    with pytest.raises(ConfigError, match="add --overwrite"):
        run(features, *asked)
    assert "2 queries of at most 3 words, 5 numbers each" in run(features, *asked, "--overwrite").stdout


def test_what_cannot_be(features: Path, tmp_path: Path) -> None:
    train = ("--annotations", tmp_path / "train.jsonl")
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.safetensors"):
        run(features, *train, "--out", tmp_path / "words.npz")
    (features / "qid8.npz").unlink()
    with pytest.raises(InputError, match="no file for 1 of 2 qids"):
        run(features, *train, "--out", tmp_path / "words.safetensors")
    assert not (tmp_path / "words.safetensors").exists()
    run(features, *train, "--out", tmp_path / "words.safetensors", "--allow-missing")


def test_with_the_tokenizer_of_the_model_words_have_numbers(features: Path, tmp_path: Path) -> None:
    model = clip_pair_folder(tmp_path / "clip")
    reads = build_text_encoder(TextRequest(name=str(model)))
    for qid, query in QUERIES.items():
        states = np.ones((len(reads.word_pieces(query) or ()), 5), dtype=np.float32)
        np.savez(features / f"qid{qid}.npz", last_hidden_state=states)
    out = tmp_path / "words.safetensors"
    asked = (features, "--annotations", tmp_path / "train.jsonl", "--out", out, "--tokenizer", model)
    run(*asked)
    stored = build_text_encoder(TextRequest(name=str(out)))
    assert stored.word_pieces("a polyp") == reads.word_pieces("a polyp")
    np.savez(features / "qid8.npz", last_hidden_state=np.ones((99, 5), dtype=np.float32))
    with pytest.raises(InputError, match=r"'water jet': features of 99 words, and .* word pieces of it"):
        run(*asked, "--overwrite")


def test_help_has_an_example() -> None:
    assert "qle prepare words " in run("--help").output


def test_a_place_that_cannot_be_written_is_named(features: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "words.safetensors"
    with pytest.raises(InputError, match=r"cannot write .*words\.safetensors"):
        run(features, "--annotations", tmp_path / "train.jsonl", "--out", out)
