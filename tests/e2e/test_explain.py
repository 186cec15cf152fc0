"""qle explain over a made-up film with masks, a real cache and a run folder (whose head has random weights)."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from qle.backbones import BackboneRequest
from qle.cache.reader import open_cache
from qle.cli.app import app
from qle.errors import AnnotationError, CacheMismatchError, ConfigError, InputError
from qle.explain.check import check_faithfulness, fresh_heads, open_run
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import run as extract
from qle.extract.sampling import Sampling
from qle.synthetic.script import SyntheticConfig
from qle.synthetic.write import write_synthetic
from tests.e2e.test_localize import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """made/ (two films, annotations, masks), cache/ (4x4 patches, 2 rows a second) and run/."""
    folder = tmp_path_factory.mktemp("explain")
    config = SyntheticConfig(num_train=0, num_val=0, num_test=2, num_composition=0, seconds=6, size=96)
    write_synthetic(folder / "made", config, num_processes=1)
    videos = folder / "made" / "videos"
    request = ExtractRequest(
        inputs=(str(videos),), cache=folder / "cache", root=videos, backbones=(BackboneRequest(name="tiny"),),
        sampling=Sampling(mode="fps", fps=2), tokens=TokenOptions(grid=4), devices=("cpu",), num_workers=1,
        durability="none",
    )  # fmt: skip
    extract(request, lambda progress: None)
    make_run(folder / "run", open_cache(folder / "cache").space())
    return folder


def explain(made: Path, *arguments: object, code: int = 0) -> None:
    line = ["explain", "--checkpoint", made / "run", "--cache", made / "cache", "--device", "cpu", "-q", *arguments]
    assert (app([str(part) for part in line], standalone_mode=False) or 0) == code


def test_faithfulness_has_every_measure_beside_its_floors(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = made / "made" / "annotations" / "test.jsonl"
    out = made / "measures.json"
    explain(made, "--faithfulness", "--annotations", annotations, "--max-rows", 12, "--json", "--out", out)
    found = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == found
    measures = {measure["name"]: measure for measure in found["measures"]}
    assert 1 <= found["num_rows"] <= 12
    assert found["num_videos"] == 2
    assert set(measures["pointing"]["floors"]) == {"centre", "random", "fresh weights"}
    assert set(measures) > {"energy", "rank", "deletion", "insertion", "beats random", "query swap", "picture swap"}
    for name in ("pointing", "pointing, cell", "energy", "rank", "pixel AUROC", "beats random"):
        assert 0 <= measures[name]["value"] <= 1
    # An untrained head: its maps differ from those of other weights.
    assert measures["fresh weights"]["value"] < 0.8
    assert measures["deletion"]["floors"]["inverse"] == measures["insertion"]["value"]


def test_same_seed_gives_the_same_numbers(made: Path) -> None:
    opened = open_run(made / "run", made / "cache", "cpu")
    annotations = made / "made" / "annotations" / "test.jsonl"
    first, second = (check_faithfulness(opened, annotations, max_rows=2, seed=3) for _ in range(2))
    assert first == second
    with pytest.raises(ConfigError, match="max-rows"):
        check_faithfulness(opened, annotations, max_rows=0)
    weights = [head.words.weight for head in fresh_heads(opened.run, opened.scorer, 0)]
    assert not np.allclose(weights[0].numpy(), weights[1].numpy())


def test_annotations_without_masks_are_refused(made: Path, tmp_path: Path) -> None:
    row = {"qid": "1", "vid": "test/000.mp4", "query": "a polyp", "relevant_windows": [[0, 3]]}
    (tmp_path / "bare.jsonl").write_text(json.dumps(row))
    with pytest.raises(AnnotationError, match="masks or boxes"):
        explain(made, "--faithfulness", "--annotations", tmp_path / "bare.jsonl")


def test_report_pictures_and_film(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, pictures, film = tmp_path / "out.html", tmp_path / "pictures", tmp_path / "out.mp4"
    explain(
        made, "--video-id", "000", "--query", "a green <b>polyp</b>", "--report", page, "--heatmaps", pictures,
        "--overlay-video", film, "--json",
    )  # fmt: skip
    wrote = json.loads(capsys.readouterr().out)
    assert wrote["pictures"] == len(list(pictures.rglob("*.png"))) > 0
    markup = page.read_text("utf-8")
    assert "a green &lt;b&gt;polyp&lt;/b&gt;" in markup
    assert "<b>polyp" not in markup
    assert markup.count("data:image/jpeg") >= 2
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == wrote["frames"] == 12
    assert frames[0].shape == (96 + 12, 96, 3)  # the picture and the bar below it
    assert wrote["speed"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--faithfulness"], "pass --annotations"),
        (["--report", "a.html"], "pass --query"),
        (["--query", "a"], "nothing to write"),
        (["--query", "a", "--overlay-video", "a.mp4"], "one --video-id"),
    ],
)
def test_what_does_not_fit_together_is_refused(made: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        explain(made, *arguments)


def test_film_is_painted_only_on_what_was_extracted(made: Path, tmp_path: Path) -> None:
    """Another film of the same name had frames enough, and relevance of one was painted on the other."""
    films = made / "made" / "videos" / "test"
    kept = (films / "000.mp4").read_bytes()
    ask = ("--video-id", "test/000", "--query", "a polyp", "--overlay-video")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another --overlay-video"):
        explain(made, *ask, tmp_path / "file" / "out.mp4")
    (films / "000.mp4").write_bytes((films / "001.mp4").read_bytes())
    try:
        with pytest.raises(CacheMismatchError, match="another file than the one that was extracted"):
            explain(made, *ask, tmp_path / "out.mp4")
    finally:
        (films / "000.mp4").write_bytes(kept)
    assert not (tmp_path / "out.mp4").exists()


def test_a_damaged_video_among_others_is_exit_code_4(made: Path, tmp_path: Path) -> None:
    """As of qle localize; it was 0 for a report in which a video is missing."""
    cache = tmp_path / "cache"
    shutil.copytree(made / "cache", cache)
    (stored,) = cache.glob("*/videos/*/*001*/patch/c.*")
    stored.write_bytes(stored.read_bytes()[:-8])
    line = [
        "explain",
        "--checkpoint",
        made / "run",
        "--cache",
        cache,
        "-q",
        "--query",
        "a polyp",
        "--heatmaps",
        tmp_path / "a",
    ]
    assert app([str(part) for part in line], standalone_mode=False) == 4


def test_film_is_never_written_over_one_that_the_cache_was_made_from(made: Path) -> None:
    for name in ("000.mp4", "001.mp4"):
        film = made / "made" / "videos" / "test" / name
        before = film.read_bytes()
        with pytest.raises(InputError, match="reads that file"):
            explain(made, "--video-id", "test/000", "--query", "a polyp", "--overlay-video", film)
        assert film.read_bytes() == before
