"""Names of text encoders, and that asking for settings loads no torch."""

import subprocess
import sys

import pytest

from qle.errors import ConfigError
from qle.text import TextRequest, build_text_encoder, rebuild_text_encoder


@pytest.mark.parametrize("name", ["minlm", "hf", "bert"])
def test_unknown_names(name) -> None:
    with pytest.raises(ConfigError, match=rf"unknown text encoder '{name}': .*minilm, tiny\nor a Hugging Face id"):
        build_text_encoder(TextRequest(name=name))


def test_a_record_that_is_none() -> None:
    with pytest.raises(ConfigError, match="no setting 'nam'; did you mean name"):
        rebuild_text_encoder({"request": {"nam": "tiny"}})


@pytest.mark.slow
def test_requests_need_no_torch() -> None:
    code = "import sys, qle.text, qle.text.request; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
