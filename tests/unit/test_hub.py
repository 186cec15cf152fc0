"""Models of the hub where it is out of reach: asked for once, briefly; what was downloaded is used, the rest is one line.

The hub here is a server of the test on this machine, and the library that asks it is the real one.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants

from qle import hub
from qle.backbones import BackboneRequest, build_backbone, check_request
from qle.data.summaries.language_model import LanguageModel
from qle.errors import ConfigError
from qle.extract.respec import EXTRACTED
from qle.runs.record import CONFIG_FILE, RunRecord, SpaceUse
from qle.text import TextRequest, build_text_encoder
from tests.small_language_models import gpt2_folder
from tests.small_models import bert_folder, vit_folder

pytestmark = pytest.mark.slow


class Hub(BaseHTTPRequestHandler):
    """Answers everything with one status code, and remembers what it was asked."""

    status = 503
    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[type[Hub]]:
    handler = type("ThisHub", (Hub,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    handler.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def nothing_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub._silence.cache_clear()


def _hub_lies_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ("extract", "--videos", ".", "--cache", "cache", "--backbone", "owner/model"),
    ("train-heads", "--cache", "cache", "--annotations", "a", "--val", "b", "--out", "c", "--text-encoder", "owner/model"),
], ids=lambda arguments: arguments[0])  # fmt: skip
def test_a_hub_that_is_down_is_asked_once_and_the_command_ends_with_one_line(
    served: type[Hub], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The library by itself asks six times and more, 25 s long. torch is not imported for this: it would take seconds."""
    program = "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))\nfrom qle.cli.app import main\nmain()"
    env = os.environ | {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path)}  # type: ignore[attr-defined]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "False\n"), ended.stderr
    assert [path for path in served.asked if "owner" in path] == ["/owner/model/resolve/main/config.json"]
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(
        "error: owner/model: no such folder, not among the downloaded models, and http://127"
    )
    assert "answers 503" in ended.stderr


def test_a_hub_that_cannot_be_reached(closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _hub_lies_at(closed_port, monkeypatch)
    with pytest.raises(ConfigError, match=rf"^owner/model: .* {closed_port} cannot be reached .*pass a folder$"):
        check_request(BackboneRequest(name="owner/model"))


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that swallows what is sent, or a proxy that hangs."""
    monkeypatch.setattr(hub, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        _hub_lies_at(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
        with pytest.raises(ConfigError, match=r"has not answered within 0.2 s"):
            hub.check_available("owner/model")


@pytest.mark.parametrize("status", [401, 404])
def test_an_answer_that_there_is_no_such_model_is_left_to_the_library(
    served: type[Hub], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    served.status = status
    _hub_lies_at(served.url, monkeypatch)  # type: ignore[attr-defined]
    assert hub.hub_options("owner/model") == {"local_files_only": False, "trust_remote_code": False}
    with pytest.raises(ConfigError, match="owner/model: no vision model could be loaded from there"):
        build_backbone(BackboneRequest(name="owner/model", device="cpu"))


def test_what_was_downloaded_is_used_without_the_hub(
    closed_port: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _hub_lies_at(closed_port, monkeypatch)
    _download(vit_folder(tmp_path / "vit"), tmp_path)
    assert hub.hub_options("owner/model")["local_files_only"]
    assert build_backbone(BackboneRequest(name="owner/model", device="cpu")).streams[0].name == "patch"


@pytest.mark.parametrize(("make", "build"), [
    (vit_folder, lambda name: build_backbone(BackboneRequest(name=name, device="cpu"))),
    (bert_folder, lambda name: build_text_encoder(TextRequest(name=name))),
    (gpt2_folder, lambda name: LanguageModel(name, torch.device("cpu"))),
], ids=["pictures", "texts", "sentences"])  # fmt: skip
def test_a_hub_that_is_down_is_asked_once_for_what_was_downloaded(
    served: type[Hub],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make: Callable[[Path], Path],
    build: Callable[[str], object],
) -> None:
    """The library's own search for an adapter asked it again and again, 25 s long."""
    _hub_lies_at(served.url, monkeypatch)  # type: ignore[attr-defined]
    _download(make(tmp_path / "made"), tmp_path)
    build("owner/model")
    assert served.asked == ["/owner/model/resolve/main/config.json"]


def _download(folder: Path, tmp_path: Path) -> None:
    """The files of the folder stand where the library keeps what it has downloaded of owner/model."""
    downloaded = tmp_path / "hub" / "models--owner--model"
    shutil.copytree(folder, downloaded / "snapshots" / ("0" * 40))
    (downloaded / "refs").mkdir()
    (downloaded / "refs" / "main").write_text("0" * 40)


def test_a_path_that_does_not_exist_is_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^models/vit/base: no such folder.* it is no id of a model"):
        check_request(BackboneRequest(name="models/vit/base"))


OF_A_RUN = (
    "localize --cache cache --query a --checkpoint run",
    "localize --video film.mp4 --query a --checkpoint run-of-words",
    "search --cache cache --query a --retriever run",
    "eval --cache cache --annotations a.jsonl --checkpoint run",
    "explain --cache cache --query a --report r.html --checkpoint run",
    "extract --videos . --cache new --backbone nobody/model",
    "train-heads --cache cache --annotations a --val a --out new --text-encoder nobody/model",
)
ASKED_IN_ONE_PROCESS = """
import sys
from functools import partial
from qle.cli import ending
from qle.cli.app import app
for line in sys.argv[1:]:
    try:
        ending.run(partial(app, line.split()))
    except SystemExit as end:
        print(end.code, "torch" in sys.modules, "transformers" in sys.modules)
"""


def _run_with_models_of_the_hub(folder: Path, text: str, backbone: str) -> None:
    """The record of a run, which is all that is read before a model is asked for."""
    space = SpaceUse(
        name="a", hash="0" * 64, hashed={"backbone": {"id": "hf-vit"}} | {part: {} for part in EXTRACTED[1:]}, streams={},
        rate_fps=None, backbone_source=backbone,
    )  # fmt: skip
    record = RunRecord(
        head="qle", head_config={}, text={"request": {"name": text}}, text_dim=8, sentence_dim=8, space=space, priors=None,
        settings={}, selection={}, versions={}, created=datetime.now(UTC),
    )  # fmt: skip
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(record.model_dump_json())


@pytest.mark.slow
def test_what_is_not_there_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """`qle localize` with a model that was never downloaded imported torch and transformers for ten seconds to say so."""
    _run_with_models_of_the_hub(tmp_path / "run", "nobody/model", "tiny")
    _run_with_models_of_the_hub(tmp_path / "run-of-words", "tiny", "nobody/model")
    ended = subprocess.run(
        [sys.executable, "-c", ASKED_IN_ONE_PROCESS, *OF_A_RUN], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["2 False False"] * len(OF_A_RUN), ended.stderr
    told = [line for line in ended.stderr.splitlines() if line]
    assert len(told) == len(OF_A_RUN)
    assert all("nobody/model: no such folder, not among the downloaded models" in line for line in told)
