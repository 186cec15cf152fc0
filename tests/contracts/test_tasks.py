"""What every task keeps to, and the proof that one more is a folder and a line: a task of the tests goes through the real
commands, and nothing in qle is told about it but the line in TASKS (and that of its head in HEADS)."""

import json
from pathlib import Path

import pytest

from qle import heads, task
from qle.cli.app import app
from qle.config import load_plugin
from qle.eval.run import SHARED, protocol_names
from qle.heads import HEADS, task_of
from qle.task import TASKS, Task, named_task
from qle.tasks.answering import Answerer
from qle.train.training import Training
from tests.planted import QUERIES, Planted, planted_cache
from tests.toy_task import HEAD

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_what_is_there(name: str) -> None:
    known = named_task(name)
    assert known.name == name
    assert issubclass(known.training_class, Training)
    assert isinstance(known.data_config_class(), known.data_config_class)
    assert callable(load_plugin(known.evaluation))
    assert all(protocol in SHARED for protocol in known.protocols[1:])
    assert known.ranks_videos or issubclass(known.answerer_class, Answerer)
    assert "{run}" in known.use


@pytest.mark.parametrize("head", HEADS)
def test_every_head_has_a_task(head: str) -> None:
    assert isinstance(task_of(head), Task)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_cache(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines."""
    monkeypatch.setitem(task.TASKS, "toy", "tests.toy_task:TASK")
    monkeypatch.setitem(heads.HEADS, "toy", HEAD)


@pytest.fixture
def run(toy: None, planted: Planted, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture) -> Path:
    """Trained by the command."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    settings = ("train.steps=60", "train.eval_every=20", "train.lr=3e-2", "train.text_lr=1e-2", "text.dim=16")
    chosen = [part for setting in settings for part in ("--set", setting)]
    command("train-heads", "--head", "toy", *common(planted), "--annotations", planted.train, "--val", planted.val,
            "--out", out, "--track", "none", *chosen)  # fmt: skip
    assert "qle localize --checkpoint" in capsys.readouterr().out
    return out


def common(planted: Planted) -> tuple[object, ...]:
    return "--cache", planted.cache, "--device", "cpu", "-q"


def command(*arguments: object) -> None:
    """The command line, in this process, where the two lines are known."""
    assert not app([str(argument) for argument in arguments], standalone_mode=False)


def test_one_more_task_goes_through_every_command(
    run: Path, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "toy" in protocol_names()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["selection"]["val_hit"] >= 0.8

    command("eval", "--checkpoint", run, *common(planted), "--annotations", planted.val, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["toy"]["hit"]["value"] == pytest.approx(metrics["validation"]["hit"])
    command(
        "eval", "--checkpoint", run, *common(planted), "--annotations", planted.val, "--protocol", "moments", "--json"
    )
    assert json.loads(capsys.readouterr().out)["metrics"]["moments"]["miou"]["value"] > 0

    command(
        "localize", "--checkpoint", run, *common(planted), "--query", QUERIES[0], "--video-id", "val6.mp4", "--json"
    )
    (answer,) = json.loads(capsys.readouterr().out)["predictions"]
    assert answer["video"] == "val6.mp4"
    assert 0 < answer["moments"][0]["score"] <= 1

    assert json.loads((run / "config.json").read_text())["constants"] == {"hit_rate": metrics["validation"]["hit"]}

    page = tmp_path / "page.html"
    command(
        "explain",
        "--checkpoint",
        run,
        *common(planted),
        "--query",
        QUERIES[0],
        "--video-id",
        "val6.mp4",
        "--report",
        page,
    )
    assert QUERIES[0] in page.read_text()


def test_what_the_task_does_not_have_is_one_error(run: Path, planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="does not go with --protocol retrieval"):
        command("eval", "--checkpoint", run, *common(planted), "--annotations", planted.val, "--protocol", "retrieval")
    with pytest.raises(Exception, match="there is nothing to explain"):
        command("explain", "--faithfulness", "--checkpoint", run, *common(planted), "--annotations", planted.val)
    with pytest.raises(Exception, match="ranks no videos"):
        command("search", "--retriever", run, *common(planted), "--query", QUERIES[0])
