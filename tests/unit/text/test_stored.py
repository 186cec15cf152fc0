"""Stored encodings: what is written is read, files may grow, and what is no such file is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from qle.errors import CheckpointError, ConfigError, InputError
from qle.text import TextRequest, build_text_encoder, rebuild_text_encoder
from qle.text.bank import QueryBank
from qle.text.stored import write_stored_words
from qle.text.words_file import StoredQueries
from tests.small_models import KNOWN_QUERIES, stored_file

pytestmark = pytest.mark.slow

STATES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    pooled = np.array([3.0, 4.0], dtype=np.float32)
    write_stored_words(path, {"a  polyp": (STATES, pooled), "jet": (STATES[:1] + 1, -pooled)})
    assert [file.name for file in tmp_path.iterdir()] == ["words.safetensors"]
    encoder = build_text_encoder(TextRequest(name=str(path)))
    words = QueryBank(encoder).encode(["jet", "a polyp", "jet"])  # spaces aside, the same text
    assert words.states.tolist() == [[[1, 2, 3], [0, 0, 0]], [[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [0, 0, 0]]]
    assert words.mask.tolist() == [[True, False], [True, True], [True, False]]
    torch.testing.assert_close(words.sentence[1], torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(words.sentence_norm, torch.full((3,), 5.0))
    assert words.ids is None
    assert encoder.word_pieces("jet") is None
    assert encoder.is_frozen


def test_without_a_pooled_vector_the_words_have_a_mean(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    write_stored_words(path, {"a polyp": (STATES.astype(np.float16), None)})
    stored = StoredQueries(path)
    np.testing.assert_allclose(stored.query("a polyp").pooled, [1.5, 2.5, 3.5])
    assert stored.query("a polyp").states.dtype == np.float16  # kept as it came


def test_a_file_that_has_grown_serves_the_same_runs_and_another_does_not(tmp_path: Path) -> None:
    small = stored_file(tmp_path, KNOWN_QUERIES)
    spec = build_text_encoder(TextRequest(name=str(small))).spec()
    (tmp_path / "more").mkdir()
    grown = stored_file(tmp_path / "more", (*[f"query {number}" for number in range(99)], *KNOWN_QUERIES))
    assert rebuild_text_encoder(spec, source=str(grown)).name == str(grown)
    with pytest.raises(CheckpointError, match=r"of \d sampled queries, 1 missing\nrestore the file"):
        rebuild_text_encoder(spec, source=str(stored_file(tmp_path / "more", KNOWN_QUERIES[1:])))
    changed = {query: (np.ones((2, 16), np.float32), np.ones(8, np.float32)) for query in KNOWN_QUERIES}
    write_stored_words(grown, changed)
    with pytest.raises(CheckpointError, match=r"of (\d) sampled queries, \1 with other numbers, e\.g\. '.+'\n"):
        rebuild_text_encoder(spec, source=str(grown))


def test_numbers_that_cannot_be_words(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    nothing = np.empty((0, 3), np.float32)
    for entry in [(nothing, None), (STATES[0], None), (STATES * np.nan, None), (STATES, STATES), (STATES * 0, None)]:
        with pytest.raises(InputError, match="query 'jet': "):
            write_stored_words(path, {"jet": entry})
    with pytest.raises(InputError, match="numbers of word pieces for 2 words"):
        write_stored_words(path, {"jet": (STATES, None, np.arange(3))})
    with pytest.raises(InputError, match="given for 1 of 2"):
        write_stored_words(path, {"jet": (STATES, None, np.arange(2)), "polyp": (STATES, None)})
    with pytest.raises(InputError, match="different widths"):
        write_stored_words(path, {"jet": (STATES, None), "polyp": (STATES[:, :2], None)})
    with pytest.raises(InputError, match="no queries"):
        write_stored_words(path, {})
    assert not path.exists()


def test_files_that_hold_no_queries(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    with pytest.raises(InputError, match="no such file of stored queries"):
        build_text_encoder(TextRequest(name=str(path)))
    save_file({"weight": STATES}, path)
    with pytest.raises(InputError, match="safetensors, but no stored queries"):
        build_text_encoder(TextRequest(name=str(path)))
    whole = stored_file(tmp_path).read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(InputError, match="damaged or cut short"):
        build_text_encoder(TextRequest(name=str(path)))
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"text\.max_words: .* drop it"):
        build_text_encoder(TextRequest(name=str(path), max_words=4))
