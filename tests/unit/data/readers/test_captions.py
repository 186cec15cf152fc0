"""Texts about whole videos: DiDeMo's paragraphs, MSR-VTT's captions, TACoS-CG's summaries."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qle.data.annotations import Annotation
from qle.data.readers import didemo, msrvtt, tacos_coarse
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError, ConfigError
from tests.dataset_samples import DIDEMO, MSRVTT, MSRVTT_DATA, MSRVTT_LIST, TACOS_CG

Write = Callable[[str], Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(content: str) -> Path:
        (tmp_path / "a.csv").write_bytes(content.encode())
        return tmp_path / "a.csv"

    return write


# DiDeMo


def test_didemo_paragraphs(file: Write) -> None:
    log = ReadLog()
    assert didemo.read(file(DIDEMO), log) == [
        Annotation(
            qid="test_data_id_00000", video="26292851@N04_42.5", query="a man, in red kicks it. he leaves", windows=(),
            is_labelled=False, origin={"file": "26292851@N04_42.5.m4v", "start_s": 0, "end_s": 31},
        ),
        Annotation(
            qid="test_data_id_00123", video="510", query="a dog jumps", windows=(), is_labelled=False,
            origin={"file": "510.mpg", "start_s": 5, "end_s": 25},
        ),
    ]  # fmt: skip
    assert log.notes == []


def test_didemo_with_bare_line_feeds_says_the_same(file: Write) -> None:
    crlf = didemo.read(file(DIDEMO), ReadLog())
    assert didemo.read(file(DIDEMO.replace("\r\n", "\n")), ReadLog()) == crlf


def test_didemo_videos_by_id(file: Write) -> None:
    assert [one.video for one in didemo.read(file(DIDEMO), ReadLog(), by_id=True)] == [
        "test_data_id_00000", "test_data_id_00123",
    ]  # fmt: skip


def test_didemo_videos_that_could_not_be_read_are_left_out_by_name(file: Write) -> None:
    log = ReadLog()
    assert len(didemo.read(file(DIDEMO.replace("True,/data/all_videos/510", "False,/data/all_videos/510")), log)) == 1
    assert "line 4, success: 'False'" in log.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "test_data_id_123.pth",
            "somewhere.pth",
            "line 4, formatted_data: expected the path of a file whose name ends in",
        ),
        ("test_data_id_123", "test_data_id_0", "line 4, formatted_data: 'test_data_id_00000' stands in line 2 too"),
        ("tensor([5])", "tensor([x])", r"line 4, starts: expected a number, got 'tensor\(\[x\]\)'"),
        ("tensor([5])", "tensor([nan])", "line 4, starts: expected a number"),
        ("a dog jumps", " ", "line 4, text: expected words, got ''"),
        ("/data/all_videos/510.mpg", "..", "line 4, video_path: expected a name below the folder of the videos"),
        ("a dog jumps,", "a dog, jumps,", "line 4, row: 7 cells for 6 columns"),
        (",text,", ",words,", "line 1: no column text"),
        ("a dog jumps", '"a dog jumps', "line 4: no CSV"),
    ],
)
def test_wrong_didemo_rows(file: Write, old: str, new: str, message: str) -> None:
    assert old in DIDEMO
    with pytest.raises(AnnotationError, match=rf"a\.csv {message}"):
        didemo.read(file(DIDEMO.replace(old, new)), ReadLog())


# MSR-VTT


def test_published_msrvtt_rows(shared_annotations: Path) -> None:
    annotations = msrvtt.read(shared_annotations / "msrvtt_jsfusion_test.csv", ReadLog())
    assert annotations[0] == Annotation(
        qid="ret0", video="video9770", query="a person is connecting something to system", windows=(), is_labelled=False
    )
    lines = (shared_annotations / "msrvtt_jsfusion_test.csv").read_text().splitlines()
    assert len(annotations) == len(lines) - 1 == len({one.video for one in annotations})


def test_captions_of_listed_videos(tmp_path: Path, file: Write) -> None:
    (tmp_path / "data.json").write_text(json.dumps(MSRVTT_DATA))
    annotations = msrvtt.read(file(MSRVTT_LIST), ReadLog(), captions=tmp_path / "data.json")
    assert [(one.qid, one.video, one.query, one.split) for one in annotations] == [
        ("12", "video1", "a man sings", "train"),
        ("11", "video0", "a car drives", "train"),
        ("13", "video0", "somebody drives a car", "train"),
    ]
    with pytest.raises(AnnotationError, match=r"no column sentence.*\n.*--captions"):
        msrvtt.read(file(MSRVTT_LIST), ReadLog())
    for name in ("video7", "video0"):
        with pytest.raises(
            AnnotationError, match=f"line 4, video_id: no captions of '{name}' in .*, or it was listed before"
        ):
            msrvtt.read(file(MSRVTT_LIST + name + "\n"), ReadLog(), captions=tmp_path / "data.json")


def test_all_captions_in_their_splits(tmp_path: Path, file: Write) -> None:
    path = file(json.dumps(MSRVTT_DATA))
    assert [one.split for one in msrvtt.read(path, ReadLog())] == ["train", "train", "train", "val"]
    with pytest.raises(ConfigError, match="has captions of its own"):
        msrvtt.read(path, ReadLog(), captions=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": {}}, "line 1, sentences: expected a list"),
        ({"sentences": [7]}, r"line 1, sentences\[0\] row: expected an object, got 7"),
        ({"sentences": [{"caption": "a", "video_id": "v"}]}, r"line 1, sentences\[0\] sen_id: missing"),
        ({"sentences": [{"sen_id": 1, "video_id": "v"}]}, r"line 1, sentences\[0\] caption: missing"),
        ({"sentences": [{"sen_id": 1, "caption": "a"}]}, r"line 1, sentences\[0\] video_id: missing"),
        (
            {"sentences": [{"sen_id": 1, "caption": "a", "video_id": "v"}] * 2},
            r"sentences\[1\] sen_id: 1 is there twice",
        ),
        ({"videos": [{"video_id": "v", "split": "dev"}]}, r"videos\[0\] split: expected train, .*got 'dev'"),
        ({"videos": [{"video_id": None, "split": "test"}]}, r"videos\[0\] video_id: missing"),
        ({"videos": [{"video_id": "v", "split": []}]}, r"videos\[0\] split: expected words"),
    ],
)
def test_wrong_captions(file: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=rf"a\.csv .*{message}"):
        msrvtt.read(file(json.dumps(MSRVTT_DATA | change)), ReadLog())


def test_wrong_msrvtt_tables(file: Write) -> None:
    for old, new, message in (
        ("ret1", "ret0", "line 3, key: 'ret0' stands in line 2 too"),
        ("video_id", "id", "line 1: no column video_id"),
        ("video9771", "", "line 3, video_id: expected words"),
        ("a person connects something", "", "line 2, sentence: expected words"),
        ("a person connects something", "a person, connects", "line 2, row: 5 cells for 4 columns"),
    ):
        with pytest.raises(AnnotationError, match=rf"a\.csv {message}"):
            msrvtt.read(file(MSRVTT.replace(old, new)), ReadLog())
    (left,) = msrvtt.read(file(MSRVTT.replace("video9771", "")), ReadLog(skip_bad=True))
    assert left.qid == "ret0"


# TACoS-CG


def test_published_summaries(shared_annotations: Path) -> None:
    rows = json.loads((shared_annotations / "tacos_cg.json").read_text())
    annotations = tacos_coarse.read(shared_annotations / "tacos_cg.json", ReadLog())
    assert [one.query for one in annotations] == [row["summarized_sentence"] for row in rows]
    assert annotations[1].qid == "s17-d69_cg1"
    assert annotations[1].duration_s == pytest.approx(12438 / 29.4)
    assert not any(one.is_labelled for one in annotations)


def test_summaries_of_listed_videos(tmp_path: Path, file: Write) -> None:
    log = ReadLog()
    (tmp_path / "train.txt").write_text("s25-d35.avi\ns99-d99\n")
    (only,) = tacos_coarse.read(file(json.dumps(TACOS_CG)), log, videos=tmp_path / "train.txt")
    assert (only.video, only.qid) == ("s25-d35", "s25-d35_cg0")
    assert log.notes == ["1 listed videos have no summary: s99-d99"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": None}, "video_id: missing"),
        ({"summarized_sentence": ""}, "summarized_sentence: expected words"),
        ({"fps": "29"}, "fps: expected a finite number, got '29'"),
        ({"num_frames": 0}, "fps: expected more than 0, got 29.4 for 0 frames"),
    ],
)
def test_wrong_summaries(file: Write, change: dict[str, Any], message: str) -> None:
    text = json.dumps([TACOS_CG[0], TACOS_CG[0] | change], indent=1)
    with pytest.raises(AnnotationError, match=rf"a\.csv line 8, \[1\] {message}"):
        tacos_coarse.read(file(text), ReadLog())
