"""qle localize --video of a run whose backbone is a folder of the user's: found where it was, wherever the command is given."""

import json
import shutil
from pathlib import Path

import pytest

from qle.backbones import BackboneRequest
from qle.cache.reader import open_cache
from qle.errors import CacheMismatchError, ConfigError
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.localize.request import LocalizeRequest, LocalizeResult
from qle.localize.run import localize
from qle.runs.record import space_use
from qle.types import Query
from tests.e2e.test_localize import make_run
from tests.running import record_fields
from tests.small_models import clip_folder, vit_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def work(small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/clip, cache/ (of one film) and run/, made by commands that were given in work/models."""
    work = tmp_path_factory.mktemp("backbone")
    (work / "models" / "clip").mkdir(parents=True)
    clip_folder(work / "models" / "clip")
    request = ExtractRequest(
        inputs=(str(small_videos / "b.mp4"),), cache=work / "cache", backbones=(BackboneRequest(name="clip"),),
        sampling=Sampling(mode="fps", fps=5), tokens=TokenOptions(grid=2), devices=("cpu",), num_workers=1,
        durability="none",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work / "models")
        extract(request, lambda progress: None)
    make_run(work / "run", open_cache(work / "cache").space())
    return work


def ask(work: Path, film: Path, **changes: object) -> LocalizeResult:
    fields: dict = {"checkpoint": work / "run", "queries": (Query(text="smoke"),), "videos": (str(film),)} | changes
    return localize(LocalizeRequest(**fields))


def test_a_folder_is_found_where_it_was(
    work: Path, small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded as it was typed, and asked for again by --weights even where the cache lay beside it."""
    monkeypatch.chdir(tmp_path)
    (prediction,) = ask(work, small_videos / "a.mp4").predictions
    assert prediction.video == "a.mp4"
    use = space_use(open_cache(work / "cache").space(), None)
    assert use.backbone_source == str(work / "models" / "clip")


def test_a_run_that_does_not_say_it_asks_the_cache(work: Path, small_videos: Path, tmp_path: Path) -> None:
    """Runs of earlier versions keep no such line."""
    copy, cache = tmp_path / "run", tmp_path / "cache"
    shutil.copytree(work / "run", copy)
    shutil.copytree(work / "cache", cache)
    record = record_fields(copy / "config.json")
    del record["space"]["backbone_source"]
    (copy / "config.json").write_text(json.dumps(record))
    assert ask(work, small_videos / "a.mp4", checkpoint=copy, cache=cache).predictions
    with pytest.raises(ConfigError, match=r"backbone hf-clip of the run: pass its file or folder by --weights"):
        ask(work, small_videos / "a.mp4", checkpoint=copy)


def test_a_folder_that_has_moved_is_asked_for(work: Path, small_videos: Path, tmp_path: Path) -> None:
    before, after = work / "models" / "clip", tmp_path / "elsewhere"
    before.rename(after)
    try:
        with pytest.raises(ConfigError) as caught:
            ask(work, small_videos / "a.mp4")
        assert f"which is not at {before} any more: pass its file or folder by --weights" in str(caught.value)
        assert ask(work, small_videos / "a.mp4", weights=(str(after),)).predictions
        before.mkdir()
        vit_folder(before)
        with pytest.raises(CacheMismatchError, match=r"another model lies at .*/models/clip now: pass the --weights"):
            ask(work, small_videos / "a.mp4")
    finally:
        shutil.rmtree(before, ignore_errors=True)
        after.rename(before)
