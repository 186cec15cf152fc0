"""Annotations find their videos."""

import pytest

import qle
from qle.cache.reader import Space
from qle.cache.spaces import create_space
from qle.data.annotations import Annotation
from qle.data.lookup import match_videos
from qle.data.rows import extent_s
from qle.errors import AnnotationError
from tests import tiny_cache as tiny

KEYS = ("a/video01.mp4", "a/video02.mp4", "b/video02.mp4", "b/last.avi")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    folder = create_space(tmp_path_factory.mktemp("lookup") / "cache", tiny.tiny_spec())
    for key in KEYS:
        tiny.commit_video(folder, key, num_rows=4)
    return qle.open_cache(folder.path.parent).space()


def about(*videos: str) -> list[Annotation]:
    return [Annotation(qid=str(n), video=video, query="a polyp", windows=()) for n, video in enumerate(videos)]


def test_by_key_file_name_and_stem(space: Space) -> None:
    rows = about("b/last.avi", "last.avi", "video01", "a/video02", "last")
    by_key, missing = match_videos(space, rows)
    assert list(by_key) == ["a/video01.mp4", "a/video02.mp4", "b/last.avi"]
    assert by_key["b/last.avi"] == [rows[0], rows[1], rows[4]]
    assert missing == []


def test_missing_videos_are_named(space: Space) -> None:
    with pytest.raises(AnnotationError, match=r"2 of the 3 annotated videos .*'video1', 'other'") as error:
        match_videos(space, about("video01", "video1", "other", "other"))
    assert "nearest to 'video1' is" in str(error.value)
    assert len(str(error.value).splitlines()) == 3


def test_missing_videos_may_be_allowed_but_not_all_of_them(space: Space) -> None:
    by_key, missing = match_videos(space, about("video01", "other"), allow_missing=True)
    assert (list(by_key), missing) == (["a/video01.mp4"], ["other"])
    with pytest.raises(AnnotationError, match="1 of the 1"):
        match_videos(space, about("other"), allow_missing=True)


def test_a_name_of_two_videos_is_never_guessed(space: Space) -> None:
    with pytest.raises(AnnotationError, match="'video02' of the annotations fits 2 videos"):
        match_videos(space, about("video02"), allow_missing=True)


def test_no_annotations(space: Space) -> None:
    with pytest.raises(AnnotationError, match="no annotations"):
        match_videos(space, [])


def spoken(end_s: float, duration_s: float | None = None, qid: str = "7") -> Annotation:
    return Annotation(qid=qid, video="last", query="a polyp", windows=((0.2, end_s),), duration_s=duration_s)


def test_windows_behind_the_end_of_the_cached_video_are_refused(space: Space) -> None:
    begin_s, end_s = extent_s(space.video("b/last.avi"))
    length_s = end_s - begin_s
    match_videos(space, [spoken(length_s + 0.4), spoken(length_s + 0.9, length_s + 0.9)])  # slack, and a rounded length
    with pytest.raises(AnnotationError, match=r"qid 7 of 'b/last\.avi': \[0\.2, 700\] of a video of") as error:
        match_videos(space, [spoken(700)])
    assert "count from the first frame" in str(error.value)
    assert len(str(error.value).splitlines()) == 3
    match_videos(space, [spoken(1.0, 31.0)])  # a wrong length alone is no reason
    with pytest.raises(AnnotationError, match="1 windows"):
        match_videos(space, [spoken(30.0, 31.0)])
    with pytest.raises(AnnotationError, match=r"5 windows.*; and 2 more"):
        match_videos(space, [spoken(700, qid=str(n)) for n in range(5)])
