"""Names of text encoders, and that asking for settings loads no torch."""

import subprocess
import sys

import pytest

from qle.errors import CheckpointError, ConfigError
from qle.text import TextRequest, build_text_encoder, check_recorded_encoder, rebuild_text_encoder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["minlm", "hf", "bert"])
def test_unknown_names(name) -> None:
    with pytest.raises(ConfigError, match=rf"unknown text encoder '{name}': .*minilm, tiny\nor a Hugging Face id"):
        build_text_encoder(TextRequest(name=name))


def test_a_record_that_is_none() -> None:
    with pytest.raises(ConfigError, match="no setting 'nam'; did you mean name"):
        rebuild_text_encoder({"request": {"nam": "tiny"}})


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [None, ["tiny"], {"name": 3}])
def test_a_run_whose_record_names_no_encoder(tmp_path, recorded) -> None:
    """Such a record, of an older version without a digest, ended `qle localize` with a traceback."""
    with pytest.raises(CheckpointError, match="names no text encoder"):
        check_recorded_encoder({"request": recorded}, tmp_path)
    check_recorded_encoder({}, tmp_path)


def test_requests_need_no_torch() -> None:
    code = "import sys, qle.text, qle.text.request; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
