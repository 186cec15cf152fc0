"""Files that list the sentences of each video: TACoS, ActivityNet Captions, Charades-CG and -CD."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qle.data.annotations import read_annotations
from qle.data.readers import activitynet, charades_splits, tacos
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError
from tests.dataset_samples import ACTIVITYNET, CD, CG, TACOS

Write = Callable[[Any], Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(content: Any) -> Path:
        (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
        return tmp_path / "a.json"

    return write


# TACoS


def test_tacos_counts_frames(file: Write) -> None:
    log = ReadLog()
    first, last, other = tacos.read(file(TACOS), log)
    assert (first.qid, first.video, first.duration_s) == ("s17-d69_0", "s17-d69", 954 / 29.4)
    assert first.windows == ((201 / 29.4, 487 / 29.4),)
    assert last.windows == ((501 / 29.4, 954 / 29.4),)
    assert (other.qid, other.windows, other.duration_s) == ("s25-d35_0", ((0.0, 4.04),), 12.0)
    assert first.origin == {"fps": 29.4, "num_frames": 954}
    assert log.notes == []


def test_published_tacos_in_both_forms(shared_annotations: Path) -> None:
    """The JSON counts frames and has ".avi", the JSON Lines have seconds and none: the same annotations."""
    ours = tacos.read(shared_annotations / "tacos_val.json", ReadLog())
    theirs = tacos.read(shared_annotations / "tacos_lighthouse.jsonl", ReadLog())
    known = {one.qid: one for one in ours}
    assert [replace(known[one.qid], origin={}) for one in theirs] == theirs
    assert {one.video for one in theirs} == {"s34-d28"}


def test_names_with_avi_in_json_lines_lose_it(tmp_path: Path) -> None:
    row = {"qid": "x_0", "query": "he cuts", "vid": "s1-d2.avi", "duration": 9, "relevant_windows": [[1, 2]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert tacos.read(tmp_path / "a.jsonl", ReadLog())[0].video == "s1-d2"


def test_tacos_windows_end_with_the_last_frame(file: Write) -> None:
    log = ReadLog()
    assert tacos.read(file({"v.avi": _entry([[30, 115]], fps=10, num_frames=100)}), log)[0].windows == ((3.0, 10.0),)
    assert log.notes == ["1 windows cut, by up to 1.5 s, where they reached past an end of their video"]


# ActivityNet Captions


def test_activitynet_json(file: Write) -> None:
    first, second, third = activitynet.read(file(ACTIVITYNET), ReadLog())
    assert (first.qid, first.video, first.duration_s, first.windows) == ("v_a_0", "v_a", 55.15, ((0.28, 55.15),))
    assert (second.query, second.windows) == (" The coach helps.", ((13.0, 54.32),))
    assert third.qid == "v_b_0"


def test_activitynet_sentences_that_end_before_they_start_are_left_out_by_name(file: Write) -> None:
    log = ReadLog()
    content = ACTIVITYNET | {
        "v_c": {
            "duration": 9.5,
            "timestamps": [[5, 4], [1, 2], [9.5, 12], [8, 9.51]],
            "sentences": ["a", "b", "c", "d"],
        }
    }
    read = activitynet.read(file(content), log)
    assert [(one.qid, one.windows) for one in read[3:]] == [("v_c_1", ((1.0, 2.0),)), ("v_c_3", ((8.0, 9.5),))]
    cut, left_out = log.notes
    assert cut == "1 windows cut, by up to 0.01 s, where they reached past an end of their video"
    assert left_out.startswith("2 rows left out, as all published results leave them out: ")
    assert "v_c[0] timestamps: [5, 4] does not end after it starts; " in left_out


def test_published_activitynet_rows(shared_annotations: Path) -> None:
    path = shared_annotations / "activitynet_val.jsonl"
    assert activitynet.read(path, ReadLog()) == read_annotations(path)


# Charades-CG and Charades-CD


def test_charades_cg_keeps_what_is_new(file: Write) -> None:
    log = ReadLog()
    first, second = charades_splits.read(file(CG), log)
    assert first.origin == {"novels": {"v-adv": [["put", "on"]]}}
    assert (second.windows, second.duration_s, second.qid) == (((30.0, 33.67),), 33.67, "AO8RW_1")
    assert log.notes == ["1 windows cut, by up to 1.3 s, where they reached past an end of their video"]


def test_charades_cd_and_its_known_faults(file: Write) -> None:
    content = CD | {"LEOL6": {"sentences": ["a", "b"], "timestamps": [[7, 9], [4, 1]], "video_duration": 6.375}}
    log = ReadLog()
    first, second = charades_splits.read(file(content), log)
    assert (first.duration_s, first.windows) == (23.5625, ((17.7, 23.4),))
    assert (second.qid, second.windows) == ("LEOL6_1", ((1.0, 4.0),))
    assert len(log.notes) == 2


# Wrong files


def _entry(windows: list[Any], **facts: Any) -> dict[str, Any]:
    return {"timestamps": windows, "sentences": ["he cuts"] * len(windows)} | facts


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([1], r"line 3, v entry: expected an object, got \[1\]"),
        ({"timestamps": [[1, 2]], "duration": 9}, "line 3, v sentences: expected a list, got None"),
        (_entry([[1, 2]], duration=9) | {"timestamps": 3}, "line 3, v timestamps: expected a list, got 3"),
        (_entry([[1, 2]], duration=9) | {"sentences": ["a", "b"]}, "line 3, v timestamps: 1 for 2 sentences"),
        (_entry([[1, 2]], duration=9) | {"sentences": [7]}, r"line 3, v\[0\] sentences: expected words, got 7"),
        (_entry([[1]], duration=9), r"line 3, v\[0\] timestamps: expected \[start, end\], got \[1\]"),
        (_entry([[1, "2"]], duration=9), r"line 3, v\[0\] timestamps: expected a finite number, got '2'"),
        (_entry([[1, 2]]), r"line 3, v\[0\] duration: expected a finite number, got None"),
        (_entry([[1, 2]], duration=0), r"line 3, v\[0\] duration: expected more than 0, got 0"),
        (_entry([[1, 2]], duration=True), r"line 3, v\[0\] duration: expected a finite number, got True"),
    ],
)
def test_wrong_entries(file: Write, entry: Any, message: str) -> None:
    good = {"g": {"timestamps": [], "sentences": []}}
    text = json.dumps(good)[:-1] + ',\n\n"v": ' + json.dumps(entry) + "}"
    path = file(good)
    path.write_text(text)
    with pytest.raises(AnnotationError, match=rf"a\.json {message}"):
        activitynet.read(path, ReadLog())
    with pytest.raises(AnnotationError, match=r"holds no sentence of a video that can be used\n.*line 3, v"):
        activitynet.read(path, ReadLog(skip_bad=True))


def test_wrong_frames(file: Write) -> None:
    for facts, message in (
        ({"num_frames": 9}, "fps: expected a finite number, got None"),
        ({"fps": 0, "num_frames": 9}, "fps: expected more than 0, got 0"),
        ({"fps": 1, "num_frames": -9}, "num_frames: expected more than 0, got -9"),
        ({"fps": 1, "num_frames": 2}, r"relevant_windows: \[3, 9\] reaches 7 s out of the video of 2 s"),
    ):
        with pytest.raises(AnnotationError, match=rf"line 2, v\.avi\[0\] {message}"):
            tacos.read(file({"v.avi": _entry([[3, 9]], **facts)}), ReadLog())


def test_tags_of_other_sentences(file: Write) -> None:
    with pytest.raises(AnnotationError, match=r"AO8RW\[0\] novels: expected a list with one entry a sentence"):
        charades_splits.read(file({"AO8RW": CG["AO8RW"] | {"novels": [{}]}}), ReadLog())


def test_one_video_under_two_names(file: Write) -> None:
    entry = _entry([[3, 9]], fps=1, num_frames=9)
    with pytest.raises(AnnotationError, match=r"v video: 'v' stands in line 2 too"):
        tacos.read(file({"v.avi": entry, "v": entry}), ReadLog())
