"""What is remembered of a text encoder that is a file, so that a training goes on with the same one only."""

from pathlib import Path

import numpy as np

from qle.text import TextRequest
from qle.text.words_file import write_stored_words
from qle.train.setup import text_identity

ASKED = ["a polyp", "water  jet"]


def stored(path: Path, *queries: str, seed: int = 0) -> TextRequest:
    rng = np.random.default_rng(seed)
    states = {query: rng.normal(size=(3, 4)).astype(np.float32) for query in queries}
    write_stored_words(path, {query: (words, words.mean(axis=0)) for query, words in states.items()})
    return TextRequest(name=str(path))


def test_other_words_under_the_same_name_are_another_training(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    first = text_identity(stored(path, "a polyp", "water jet"), ASKED)
    assert first
    assert text_identity(stored(path, "a polyp", "water jet", "smoke"), ASKED) == first  # it has only grown
    assert text_identity(stored(path, "a polyp", "water jet", seed=1), ASKED) != first


def test_a_file_of_word_vectors_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("polyp 1 2\n")
    request = TextRequest(name=str(path))
    first = text_identity(request, ASKED)
    path.write_text("polyp 1 3\n")
    assert text_identity(request, ASKED) != first


def test_encoders_with_a_name_need_no_more() -> None:
    assert text_identity(TextRequest(name="tiny"), ASKED) == {}
