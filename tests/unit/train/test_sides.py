"""A training that has nothing to tell apart says so before its first step."""

from dataclasses import replace
from pathlib import Path

import pytest

from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.errors import AnnotationError
from qle.train.request import TrainRequest, resolve
from qle.train.run import open_training
from tests.planted import Planted, planted_cache
from tests.planted_retrieval import PlantedRetrieval, planted_retrieval


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_cache(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PlantedRetrieval:
    return planted_retrieval(tmp_path_factory.mktemp("pictures"))


def written(folder: Path, annotations: list[Annotation]) -> Path:
    path = folder / "train.jsonl"
    write_annotations(path, annotations)
    return path


def always(one: Annotation) -> Annotation:
    """The same query, which happens from begin to end."""
    assert one.duration_s is not None
    return replace(one, windows=((0.0, one.duration_s),))


def notes(request: TrainRequest) -> str:
    return "\n".join(open_training(request, resolve(request)).notes)


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_rows_that_are_all_alike_are_refused_until_allowed(planted: Planted, tmp_path: Path, side: str) -> None:
    rows = read_annotations(planted.train)
    one_sided = [replace(one, windows=()) if side == "positive" else always(one) for one in rows]
    request = replace(planted.request(tmp_path / "run"), annotations=written(tmp_path, one_sided))
    with pytest.raises(AnnotationError, match=rf"(?s)no {side} to learn from.*--allow-one-sided"):
        notes(request)
    assert f"training has no {side}" in notes(replace(request, allow_one_sided=True))
    assert "training has no" not in notes(planted.request(tmp_path / "run"))


def test_queries_of_other_videos_are_negatives_where_they_are_asked_for(planted: Planted, tmp_path: Path) -> None:
    """Each video shows one thing from begin to end: without the corpus there is no row in which it does not."""
    present = {one.video: one for one in read_annotations(planted.train) if one.is_present}
    shown = written(tmp_path, [always(one) for one in present.values()])
    request = replace(planted.request(tmp_path / "run"), annotations=shown)
    with pytest.raises(AnnotationError, match="no negative"):
        notes(request)
    for source in ("corpus", "similar"):
        asked = planted.request(tmp_path / "run", f'data.negatives=["{source}"]')
        wanted = replace(asked, annotations=request.annotations)
        if source == "corpus":
            assert "training has no" not in notes(wanted)
        else:  # "a polyp appears" and "smoke fills the view" share no word
            with pytest.raises(AnnotationError, match="no negative"):
                notes(wanted)


@pytest.mark.parametrize(("head", "is_refused"), [("qd_detr", True), ("moment_detr", False)])
def test_one_recording_has_no_negatives_for_heads_that_learn_from_them(
    planted: Planted, tmp_path: Path, head: str, is_refused: bool
) -> None:
    one_video = [one for one in read_annotations(planted.train) if one.video == "train0.mp4"]
    request = TrainRequest(
        cache=planted.cache, streams=("planted:frame",), annotations=written(tmp_path, one_video), val=planted.val,
        head=head, out=tmp_path / "run", device="cpu", track="none",
    )  # fmt: skip
    if not is_refused:
        assert "training has no" not in notes(request)
        return
    with pytest.raises(AnnotationError, match=r"(?s)no negative to learn from.*--allow-one-sided"):
        notes(request)
    assert "training has no negative" in notes(replace(request, allow_one_sided=True))
    absent = replace(request, annotations=written(tmp_path, [replace(one, windows=()) for one in one_video]))
    with pytest.raises(AnnotationError, match="no positive to learn from"):
        notes(absent)


def test_texts_that_are_true_of_all_videos_rank_none(pictures: PlantedRetrieval, tmp_path: Path) -> None:
    same = [replace(one, query="a video") for one in read_annotations(pictures.train, allow_unlabelled=True)]
    request = TrainRequest(
        cache=pictures.cache, annotations=written(tmp_path, same), val=pictures.val, head="tmass", out=tmp_path / "run",
        device="cpu", track="none",
    )  # fmt: skip
    with pytest.raises(AnnotationError, match=r"(?s)no negative to learn from.*--allow-one-sided"):
        notes(request)
    assert "training has no negative" in notes(replace(request, allow_one_sided=True))
    assert "training has no" not in notes(replace(request, annotations=pictures.train))
