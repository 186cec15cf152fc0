"""Formats of datasets, value by value, on published rows; and what is told of what they cannot hold."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.data.readers import reader
from qle.data.readlog import ReadLog
from qle.data.writers import writer
from qle.data.writers.export import export
from qle.errors import AnnotationError
from qle.eval.submissions.qvhighlights import evaluate_submission


def encoded(name: str, annotations: Sequence[Annotation], out: str = "out.x") -> tuple[list[str], list[str]]:
    """Texts of the files, and notes."""
    log = ReadLog()
    files = writer(name)(Path(out), annotations, log)
    return [content.decode() for content in files.values()], log.notes


def moment(qid: str = "1", **facts: Any) -> Annotation:
    return Annotation(
        **{"qid": qid, "video": "a", "query": "he sits", "windows": ((1.0, 2.5),), "duration_s": 9.0} | facts
    )


@pytest.mark.parametrize(
    ("read_as", "name", "write_as"),
    [
        ("qvhighlights", "qvhighlights_val.jsonl", "qvhighlights"),
        ("qvhighlights", "qvhighlights_test_hidden.jsonl", "qvhighlights"),
        ("charades", "charades_lighthouse.jsonl", "lighthouse"),
        ("tacos", "tacos_lighthouse.jsonl", "lighthouse"),
        ("activitynet", "activitynet_val.jsonl", "lighthouse"),
        ("charades", "charades_sta_test.txt", "charades-sta"),
        ("tacos", "tacos_val.json", "tacos"),
        ("tacos-cg", "tacos_cg.json", "tacos-cg"),
        ("msrvtt", "msrvtt_jsfusion_test.csv", "msrvtt"),
    ],
)
def test_published_rows_come_back_value_by_value(
    shared_annotations: Path, read_as: str, name: str, write_as: str
) -> None:
    source = shared_annotations / name
    (back,), notes = encoded(write_as, reader(read_as)(source, ReadLog()))
    assert notes == []
    text = source.read_text()
    if name.endswith(".jsonl"):
        assert list(map(json.loads, back.splitlines())) == list(map(json.loads, text.splitlines()))
    elif name.endswith(".json"):
        assert json.loads(back) == json.loads(text)
        first, again = (value[0] if isinstance(value := json.loads(one), list) else value for one in (text, back))
        assert list(first) == list(again)
    elif name.endswith(".csv"):
        assert list(csv.reader(io.StringIO(back))) == list(csv.reader(io.StringIO(text)))
    else:
        assert back == text


def test_charades_lines_and_their_lengths(shared_annotations: Path) -> None:
    (lines, lengths), _ = encoded(
        "charades-sta", reader("charades")(shared_annotations / "charades_lighthouse.jsonl", ReadLog())
    )
    assert lines.splitlines()[0] == "3MSZA 24.3 30.4##person turn a light on."
    assert lengths.splitlines()[:2] == ["id,length", "3MSZA,30.96"]
    for wrong in (moment(video="a b"), moment(video="a##b"), moment(query="he\nsits")):
        with pytest.raises(AnnotationError, match=r"annotation '1' of .*: the lines of Charades-STA cannot hold that"):
            encoded("charades-sta", [wrong])


def test_qvhighlights_has_whole_numbers_and_nothing_of_ours() -> None:
    rated = moment(saliency=np.array([[np.nan], [3.0], [2.5]], dtype=np.float32), split="val", origin={"domain": "VT"})
    (text,), notes = encoded("qvhighlights", [rated, moment("x", windows=())])
    assert text == (
        '{"qid": 1, "query": "he sits", "duration": 9, "vid": "a", "relevant_windows": [[1, 2.5]], '
        '"relevant_clip_ids": [1, 2], "saliency_scores": [[3], [2.5]]}\n'
    )
    assert notes == [
        "1 annotations left out: they say that their query never happens, which official tools refuse",
        "this format has no place for split",
    ]
    with pytest.raises(AnnotationError, match="ratings of clips that are not 2 s long"):
        encoded("qvhighlights", [moment(saliency=np.ones((9, 1), dtype=np.float32), clip_s=1.0)])


def test_a_submission_of_the_truth(shared_annotations: Path) -> None:
    source = shared_annotations / "qvhighlights_val.jsonl"
    (text,), notes = encoded("qvhighlights-submission", reader("qvhighlights")(source, ReadLog()))
    assert notes == []
    for row, truth in zip(
        map(json.loads, text.splitlines()), map(json.loads, source.read_text().splitlines()), strict=True
    ):
        assert [row[key] for key in ("qid", "query", "vid")] == [truth[key] for key in ("qid", "query", "vid")]
        assert [window[:2] for window in row["pred_relevant_windows"]] == sorted(truth["relevant_windows"])
        assert len(row["pred_saliency_scores"]) == truth["duration"] // 2
        for clip, scores in zip(truth["relevant_clip_ids"], truth["saliency_scores"], strict=True):
            assert row["pred_saliency_scores"][clip] == round(sum(scores) / 3, 4)
        assert np.count_nonzero(row["pred_saliency_scores"]) <= len(truth["relevant_clip_ids"])


def test_the_truth_scores_as_well_as_anything_can(shared_annotations: Path) -> None:
    source = shared_annotations / "qvhighlights_val.jsonl"
    (text,), _ = encoded("qvhighlights-submission", reader("qvhighlights")(source, ReadLog()))
    truth, said = (list(map(json.loads, lines.splitlines())) for lines in (source.read_text(), text))
    brief = evaluate_submission(truth, said)["brief"]
    assert [brief[f"MR-full-{name}"] for name in ("R1@0.5", "R1@0.7", "mAP")] == [100.0] * 3
    assert brief["HL-min-Fair-Hit1"] == 100.0


def test_frames_are_found_again(shared_annotations: Path) -> None:
    """Seconds of other origin are rounded to frames, at the rate of TACoS."""
    (text,), _ = encoded("tacos", [moment(video="s1-d2", windows=((1.0, 2.51),))])
    assert json.loads(text) == {
        "s1-d2.avi": {"timestamps": [[29, 74]], "sentences": ["he sits"], "fps": 29.4, "num_frames": 265}
    }
    with pytest.raises(AnnotationError, match="annotation '1' of 'a', duration: missing, and this format needs it"):
        encoded("tacos", [moment(duration_s=None)])


def test_didemo_as_it_is_printed() -> None:
    paragraph = moment("val_data_id_00012", windows=(), is_labelled=False, query='he "sits", then runs')
    (text,), _ = encoded("didemo", [paragraph, moment("odd")])
    assert text == (
        "success,video_path,starts,ends,text,formatted_data\r\n"
        'True,a,tensor([[0]]),tensor([[31]]),"he ""sits"", then runs",val_data_id_12.pth\r\n'
        "True,a,tensor([[0]]),tensor([[31]]),he sits,odd.pth\r\n"
    )


def test_tvsum_needs_a_rating_for_every_clip() -> None:
    for wrong in (
        moment(),
        moment(saliency=np.array([[np.nan]], dtype=np.float32)),
        moment(saliency=np.ones((1, 1), dtype=np.float32), clip_s=1.0),
    ):
        with pytest.raises(AnnotationError, match="annotation '1' of 'a': TVSum has a rating for every clip of 2 s"):
            encoded("tvsum", [wrong])


def test_what_a_format_has_no_word_for_is_told(tmp_path: Path) -> None:
    several = [
        moment("1", windows=((1.0, 2.0), (4.0, 5.0)), concept="sitting"),
        moment("2", windows=()),
        moment("3", windows=(), is_labelled=False),
    ]
    (text, _), notes = encoded("charades-sta", several)
    assert text == "a 1.0 2.0##he sits\na 4.0 5.0##he sits\n"
    assert notes == [
        "1 annotations left out: they say that their query never happens, for which this format has no word",
        "1 annotations left out: they have no labels, for which this format has no word",
        "1 annotations with several windows became a row for each: this format has one window a row",
        "this format has no place for concept",
    ]
    with pytest.raises(AnnotationError, match="there is nothing to write: none of 2 annotations has a window"):
        export(tmp_path / "out.json", several[1:], "activitynet")
    with pytest.raises(AnnotationError, match="no annotation that lighthouse can hold\n1 annotations left out"):
        export(tmp_path / "out.jsonl", several[1:2], "lighthouse")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["qvhighlights", "lighthouse", "qvhighlights-submission", "charades-sta", "activitynet"]
)
def test_what_is_left_out_is_not_counted_as_written(tmp_path: Path, name: str) -> None:
    known = {"video": "v", "query": "q", "duration_s": 10.0}
    present = Annotation(qid="1", windows=((0.0, 4.0),), **known)
    absent = Annotation(qid="2", windows=(), **known)
    written = export(tmp_path / "out", [present, absent], name)
    assert (written.num_annotations, written.num_left_out) == (1, 1)
