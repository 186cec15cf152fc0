"""Word vectors: where they are found, how text comes apart, and files that are none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qle.errors import ConfigError, InputError
from qle.text import LoraSettings, TextRequest, build_text_encoder
from qle.text.vectors import open_vectors, split_tokens

GLOVE = "the 1 0 0\nman 0 1 0\nn't 0 0 2\ndoes 1 1 0\ncutting-board 3 0 0\nthe 9 9 9\nboard 0 4 0\n"


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    return path


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        ("The MAN", ["the", "man"]),
        ("a man's cutting-board", ["a", "man", "'s", "cutting-board"]),
        ("isn\u2019t re-opened, 12.5 o'clock_now", ["is", "n't", "re", "opened", "12", "5", "o", "'clock", "now"]),
        ("...", []),
    ],
)
def test_how_text_comes_apart(query: str, tokens: list[str]) -> None:
    assert split_tokens(query, {"cutting-board"}.__contains__) == tokens


def test_vectors_of_known_words_and_their_places(glove: Path) -> None:
    encoder = build_text_encoder(TextRequest(name=str(glove)))
    words = encoder(["The tall man doesn't.", "board"])
    assert words.ids is not None
    assert words.ids.tolist() == [
        [1, 2, 4, 3],
        [7, 0, 0, 0],
    ]  # "tall" is left out; of two lines for "the" the first counts
    assert words.states[0].tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert words.mask.sum(dim=1).tolist() == [4, 1]
    mean = torch.tensor([0.5, 0.5, 0.5])
    assert words.sentence_norm is not None
    torch.testing.assert_close(words.sentence[0] * words.sentence_norm[0], mean)
    with pytest.raises(InputError, match=r"'tall ones': .* has no vector for any of its words \(tall, ones\)"):
        encoder.check("tall ones")


def test_a_header_is_no_word(tmp_path: Path) -> None:
    path = tmp_path / "some.vec"
    path.write_text("2 3\nthe 1 0 0 \nman 0 1 0 \n")
    found = open_vectors(path)
    assert (found.dim, list(found.at)) == (3, [b"the", b"man"])
    np.testing.assert_array_equal(found.vector(b"man"), [0, 1, 0])


def test_other_bytes_are_another_encoder(glove: Path) -> None:
    before = build_text_encoder(TextRequest(name=str(glove))).spec()["weights"]
    glove.write_text(GLOVE.replace("9", "8"))
    assert build_text_encoder(TextRequest(name=str(glove))).spec()["weights"] != before


def test_files_that_are_no_word_vectors(tmp_path: Path, glove: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.txt: word vectors cannot be read"):
        build_text_encoder(TextRequest(name=str(tmp_path / "missing.txt")))
    for content in ("", "7 300\n", "a text of another kind\nand more\n", "word\nother\n"):
        glove.write_text(content)
        with pytest.raises(InputError, match=r"expected lines of a word|is not \d numbers"):
            open_vectors(glove)
    glove.write_text(GLOVE + "short 1 2\nnone nan 0 0\n")
    encoder = build_text_encoder(TextRequest(name=str(glove)))
    for word in ("short", "none"):
        with pytest.raises(InputError, match=rf"the vector of '{word}' .* is not 3 numbers"):
            encoder([word])


def test_settings_that_mean_nothing_here(glove: Path) -> None:
    with pytest.raises(ConfigError, match="drop --lora"):
        build_text_encoder(TextRequest(name=str(glove), lora=LoraSettings()))
    with pytest.raises(ConfigError, match="drop it"):
        build_text_encoder(TextRequest(name=str(glove), dim=64))


def test_an_empty_line_is_no_vector(tmp_path: Path) -> None:
    """It ended in a ValueError about values to unpack."""
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 0 0\n\nman 0 1 0\n")
    vectors = open_vectors(path)
    assert vectors.vector(b"man").tolist() == [0, 1, 0]
    for word in vectors.at.keys() - {b"the", b"man"}:
        with pytest.raises(InputError, match="is not 3 numbers"):
            vectors.vector(word)
