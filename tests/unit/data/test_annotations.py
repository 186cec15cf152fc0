"""Annotation files: real rows as they are published, every kind of wrong row, and there and back without loss."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qle.data.annotations import Annotation, FrameBox, qid_to_json, read_annotations, write_annotations
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError, InputError

GOOD = {"qid": 1, "query": "a polyp", "vid": "a", "duration": 10, "relevant_windows": [[1, 2]]}


def same(first: Annotation, second: Annotation) -> bool:
    """Equality that knows arrays and NaN."""
    one, other = first.saliency, second.saliency
    if (one is None) != (other is None):
        return False
    if one is not None and other is not None and not np.array_equal(one, other, equal_nan=True):
        return False
    return dataclasses.replace(first, saliency=None) == dataclasses.replace(second, saliency=None)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A file with these rows."""

    def write(*rows: dict[str, Any] | str) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


# Real files


def test_qvhighlights_rows(shared_annotations: Path) -> None:
    rows = [json.loads(line) for line in (shared_annotations / "qvhighlights_val.jsonl").read_text().splitlines()]
    log = ReadLog()
    annotations = read_annotations(shared_annotations / "qvhighlights_val.jsonl", log=log)
    assert log.notes == []
    assert len(annotations) == len(rows)
    for row, annotation in zip(rows, annotations, strict=True):
        assert (annotation.qid, annotation.video) == (str(row["qid"]), row["vid"])
        assert [list(window) for window in annotation.windows] == sorted(row["relevant_windows"])
        assert annotation.saliency is not None
        assert annotation.saliency.shape == (math.ceil(row["duration"] / 2), 3)
        assert annotation.saliency[row["relevant_clip_ids"]].tolist() == row["saliency_scores"]
        assert np.isnan(annotation.saliency).all(axis=1).sum() == len(annotation.saliency) - len(row["saliency_scores"])


@pytest.mark.parametrize("name", ["charades_lighthouse", "tacos_lighthouse", "activitynet_val", "qvhighlights_val"])
def test_real_rows_survive_writing(shared_annotations: Path, tmp_path: Path, name: str) -> None:
    source = shared_annotations / f"{name}.jsonl"
    annotations = read_annotations(source)
    write_annotations(tmp_path / "back.jsonl", annotations)
    assert all(map(same, annotations, read_annotations(tmp_path / "back.jsonl")))
    lines = (source.read_text().splitlines(), (tmp_path / "back.jsonl").read_text().splitlines())
    for line, back in zip(*lines, strict=True):
        row = json.loads(back)
        row.pop("qle", None)
        assert row == json.loads(line)


def test_a_hidden_test_set_is_given_only_to_those_who_ask(shared_annotations: Path, tmp_path: Path) -> None:
    hidden = shared_annotations / "qvhighlights_test_hidden.jsonl"
    with pytest.raises(AnnotationError, match=r"5 of 5 rows are wrong\n.*line 1, relevant_windows: missing"):
        read_annotations(hidden)
    annotations = read_annotations(hidden, allow_unlabelled=True)
    assert len(annotations) == 5
    assert not any(one.is_labelled or one.is_absent or one.is_present for one in annotations)
    write_annotations(tmp_path / "hidden.jsonl", annotations)
    assert all(map(same, annotations, read_annotations(tmp_path / "hidden.jsonl", allow_unlabelled=True)))


# What is accepted


def test_liberal_in_what_is_a_matter_of_taste(written: Callable[..., Path]) -> None:
    path = written(
        '\ufeff{"qid": "s1_0", "query": " Two  Words. ", "vid": 7, "relevant_windows": [[5, 6.5], [1, 2]]}',
        "",
        GOOD | {"relevant_windows": []},
        GOOD | {"qid": 2, "duration": None, "saliency_scores": [4, None], "relevant_clip_ids": [3, 1]},
    )
    first, absent, rated = read_annotations(path)
    assert (first.qid, first.video, first.duration_s, first.windows) == ("s1_0", "7", None, ((1, 2), (5, 6.5)))
    assert first.query == " Two  Words. "
    assert first.concept_key == "two words"
    assert absent.is_absent
    assert rated.saliency is not None
    assert np.array_equal(rated.saliency, [[math.nan], [math.nan], [math.nan], [4]], equal_nan=True)


def test_windows_that_reach_out_a_little_are_cut_and_told(written: Callable[..., Path]) -> None:
    log = ReadLog()
    path = written(GOOD | {"relevant_windows": [[-0.25, 3], [8, 10.5]]})
    assert read_annotations(path, log=log)[0].windows == ((0, 3), (8, 10))
    assert log.notes == ["2 windows cut, by up to 0.5 s, where they reached past an end of their video"]


def test_windows_that_overlap_stay_apart(written: Callable[..., Path]) -> None:
    assert read_annotations(written(GOOD | {"relevant_windows": [[2, 5], [1, 3]]}))[0].windows == ((1, 3), (2, 5))


def test_keys_that_mean_nothing_are_told(written: Callable[..., Path]) -> None:
    log = ReadLog()
    path = written(GOOD | {"domain": "VT", "label": [1]})
    read_annotations(path, log=log)
    assert log.notes == [f"{path}: keys that mean nothing here: domain, label"]


# What is refused


@pytest.mark.parametrize(
    ("row", "key", "reason"),
    [
        ("{", "row", "no JSON"),
        ("[1]", "row", "expected one JSON object a line, got list"),
        ("[" * 100_000, "row", "no JSON"),
        (GOOD | {"duration": 10**400}, "duration", "expected a finite number, got 1000"),
        ('{"qid": 1, "query": "a", "vid": "v", "relevant_windows": [[NaN, 1]]}', "row", "NaN is no number"),
        ('{"qid": 1, "query": "a", "vid": "v", "relevant_windows": [[0, 1e999]]}', "relevant_windows", "got inf"),
        ('{"qid": 1, "query": "\\ud800", "vid": "v", "relevant_windows": []}', "row", "half of a character"),
        ({"query": "a", "vid": "v", "relevant_windows": []}, "qid", "missing"),
        (GOOD | {"qid": True}, "qid", "expected words, got True"),
        (GOOD | {"qid": 1.5}, "qid", "expected words, got 1.5"),
        (GOOD | {"query": "  "}, "query", "expected words, got '  '"),
        (GOOD | {"query": None}, "query", "missing"),
        *(
            (GOOD | {"vid": name}, "vid", "expected a name below the folder of the videos, got ")
            for name in ("/etc/passwd", "../a", "a/../../b", "a/..", "..", "C:\\a", "\\\\host\\a", "a\0b")
        ),
        (GOOD | {"qle": {"origin": [1]}}, "qle.origin", "expected an object, got"),
        (GOOD | {"vid": ""}, "vid", "expected words"),
        (GOOD | {"duration": 0}, "duration", "expected more than 0 s"),
        (GOOD | {"duration": "10"}, "duration", "expected a finite number, got '10'"),
        (GOOD | {"relevant_windows": 3}, "relevant_windows", "expected a list, got 3"),
        (GOOD | {"relevant_windows": [1, 2]}, "relevant_windows", r"expected \[start, end\] in seconds, got 1"),
        (GOOD | {"relevant_windows": [[1, 2, 3]]}, "relevant_windows", r"expected \[start, end\]"),
        (GOOD | {"relevant_windows": [["1", 2]]}, "relevant_windows", "expected a finite number, got '1'"),
        (GOOD | {"relevant_windows": [[2, 2]]}, "relevant_windows", r"\[2, 2\] does not end after it starts"),
        (GOOD | {"relevant_windows": [[3, 2]]}, "relevant_windows", r"\[3, 2\] does not end after it starts"),
        (GOOD | {"relevant_windows": [[-2, 2]]}, "relevant_windows", "2 s out of the video of 10 s"),
        (GOOD | {"relevant_windows": [[2, 11]]}, "relevant_windows", "1 s out of the video of 10 s"),
        (GOOD | {"relevant_windows": [[10, 10.4]]}, "relevant_windows", "0.4 s out of the video of 10 s"),
        (GOOD | {"saliency_scores": [[1]], "relevant_clip_ids": [1, 2]}, "saliency_scores", "1 for 2 relevant_clip_ids"),
        (GOOD | {"saliency_scores": [[1]], "relevant_clip_ids": [5]}, "relevant_clip_ids", "has 5 clips of 2 s"),
        (GOOD | {"saliency_scores": [[1], [1]], "relevant_clip_ids": [1, 1]}, "relevant_clip_ids", "different whole"),
        (GOOD | {"saliency_scores": [["x"]], "relevant_clip_ids": [1]}, "saliency_scores", "finite number, got 'x'"),
        (GOOD | {"qle": []}, "qle", "expected an object"),
        (GOOD | {"qle": {"splitt": "val"}}, "qle", "got splitt"),
        (GOOD | {"qle": {"clip_s": 0}}, "qle.clip_s", "more than 0"),
        (GOOD | {"qle": {"num_clips": "9"}, "saliency_scores": [[1]]}, "qle.num_clips", "whole number"),
        # Arrays of these lengths would be made: petabytes, or fewer than none.
        (GOOD | {"qle": {"num_clips": 10**15}, "saliency_scores": [[1]]}, "qle.num_clips", "at most 10,000,000, got 1000"),
        (GOOD | {"qle": {"num_clips": -1}, "saliency_scores": []}, "qle.num_clips", "whole number"),
        (GOOD | {"duration": 1e15, "saliency_scores": [[1]]}, "saliency_scores", "too many clips of 2 s"),
        (GOOD | {"qle": {"clip_s": 1e-300}, "duration": 1e10, "saliency_scores": [[1]]}, "saliency_scores", "too many"),
        (GOOD | {"qle": {"boxes": [[0, 1]]}}, "qle.boxes", "expected .time, left, top, right, bottom."),
        (GOOD | {"qle": {"boxes": [[0, 0.6, 0, 0.5, 1]]}}, "qle.boxes", "left < right"),
        (GOOD | {"qle": {"boxes": [[0, 0.6, 0, 1.5, 1]]}}, "qle.boxes", "fractions of the picture"),
    ],
)  # fmt: skip
def test_a_wrong_row_names_file_line_key_and_reason(
    written: Callable[..., Path], row: dict[str, Any] | str, key: str, reason: str
) -> None:
    path = written(GOOD | {"qid": "first"}, row)
    with pytest.raises(AnnotationError, match=f"{key}: .*{reason}") as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path} line 2, {key}: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD).replace("polyp", "\xe9").encode("latin-1"))
    with pytest.raises(AnnotationError, match="line 1, row: no JSON: 'utf-8'"):
        read_annotations(tmp_path / "latin.jsonl")


def test_the_same_qid_twice(written: Callable[..., Path]) -> None:
    with pytest.raises(AnnotationError, match="line 3, qid: '1' stands in line 1 too"):
        read_annotations(written(GOOD, "", GOOD | {"qid": "1"}))


def test_of_many_wrong_rows_the_first_are_told_and_all_counted(written: Callable[..., Path]) -> None:
    path = written(*[GOOD | {"qid": place, "vid": None} for place in range(9)], GOOD | {"qid": "good"})
    with pytest.raises(AnnotationError, match=r"(?s)^9 of 10 rows are wrong\n.*line 3, .*; and 6 more$") as caught:
        read_annotations(path)
    assert str(caught.value).count("\n") == 1
    log = ReadLog(skip_bad=True)
    assert [one.qid for one in read_annotations(path, log=log)] == ["good"]
    assert len(log.skipped) == 9
    assert log.skipped[8] == f"{path} line 9, vid: missing"
    assert log.notes == ["9 of 10 rows left out because they are wrong"]


def test_no_file_and_no_rows(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read annotations .*none\.jsonl: No such file"):
        read_annotations(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot read annotations"):
        read_annotations(tmp_path)
    with pytest.raises(AnnotationError, match="holds no annotation"):
        read_annotations(written("", " "))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": ((2.0, 1.0),)}, "'1' of 'a', relevant_windows: .* does not end after it starts"),
        ({"windows": ((0.0, math.nan),)}, "relevant_windows: expected a finite number, got nan"),
        ({"duration_s": math.inf}, "duration: expected a finite number"),
        ({"is_labelled": False}, "windows: there are some, and yet"),
        ({"query": ""}, "query: expected words"),
        ({"qid": "2"}, "qid: '2' is there twice"),
    ],
)
def test_what_would_be_refused_is_not_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    good = Annotation(qid="2", video="a", query="q", windows=((0.0, 1.0),))
    with pytest.raises(AnnotationError, match=message):
        write_annotations(path, [good, dataclasses.replace(good, **({"qid": "1"} | change))])
    assert path.read_text() == "old"
    with pytest.raises(AnnotationError, match="no annotations to write"):
        write_annotations(path, [])


def test_qids_are_numbers_again_where_they_were() -> None:
    assert [qid_to_json(qid) for qid in ("12", "0", "012", "-1", "a", "1" * 20)] == [12, 0, "012", "-1", "a", "1" * 20]


# There and back

words = st.text(min_size=1, max_size=12).filter(lambda text: text.strip())
names = words.filter(lambda text: text[0] not in "/\\" and "\0" not in text and ".." not in text and text[1:2] != ":")
facts = st.dictionaries(
    words, st.none() | st.booleans() | st.integers() | words | st.lists(words, max_size=2), max_size=2
)
seconds = st.floats(0, 1e5, allow_subnormal=False)


@st.composite
def any_annotation(draw: st.DrawFn) -> Annotation:
    windows = draw(st.lists(st.tuples(seconds, seconds).filter(lambda pair: pair[0] < pair[1]), max_size=4))
    saliency = None
    if draw(st.booleans()):
        num_clips, num_raters = draw(st.integers(1, 6)), draw(st.integers(1, 3))
        scores = draw(st.lists(st.floats(-9, 9, width=32) | st.just(math.nan), min_size=18, max_size=18))
        saliency = np.array(scores, dtype=np.float32)[: num_clips * num_raters].reshape(num_clips, num_raters)
        saliency[0, -1] = 1  # who rated nothing at all is not there
    low, high = 0.0, 0.5
    return Annotation(
        qid=draw(words), video=draw(names), query=draw(words), windows=tuple(sorted(windows)),
        duration_s=draw(st.none() | st.floats(1e5, 1e6)), saliency=saliency, clip_s=draw(st.floats(0.1, 9)),
        boxes=tuple(
            FrameBox(time_s=draw(seconds), left=low, top=low, right=draw(st.floats(0.1, 1)), bottom=high)
            for _ in range(draw(st.integers(0, 2)))
        ),
        masks=draw(st.just("") | words), split=draw(st.just("") | words), concept=draw(st.just("") | words),
        is_labelled=bool(windows) or draw(st.booleans()), origin=draw(facts),
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(any_annotation(), min_size=1, max_size=4, unique_by=lambda one: one.qid))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, annotations: list[Annotation]) -> None:
    path = tmp_path_factory.getbasetemp() / "there.jsonl"
    write_annotations(path, annotations)
    back = read_annotations(path, allow_unlabelled=True)
    assert len(back) == len(annotations)
    assert all(map(same, annotations, back))


def test_many_rows_are_read_fast(tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    rows = (json.dumps(GOOD | {"qid": qid, "query": f"query number {qid}"}) for qid in range(10_000))
    many.write_text("\n".join(rows))
    started_s = time.process_time()
    assert len(read_annotations(many)) == 10_000
    assert time.process_time() - started_s < 4
