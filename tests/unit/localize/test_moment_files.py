"""What leaves qle localize, and the questions that come in by file."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qle.errors import AnnotationError, ConfigError, InputError
from qle.eval.submissions.write import saliency, to_jsonl
from qle.localize.moment_files import FORMATS, render, to_csv, to_json, to_table, to_vtt
from qle.localize.query_files import read_queries
from qle.outputs import write_text
from qle.types import Moment, Prediction, Query, ScoreTrack

NASTY = 'smoke --> <i>"fire"</i> & more\nsecond line'


def prediction(
    *moments: tuple[float, float, float], query: str = "smoke", video: str = "day 1/a.mp4", qid: str | None = None
) -> Prediction:
    """Five rows of a video of 9 s, of which the last one is not valid."""
    edges_s = np.array([0.0, 1.0, 3.0, 5.0, 7.0, 9.0])
    valid = np.array([True, True, True, True, False])
    logit = np.array([-1, 2, np.nan, 0, 0], np.float32)
    track = ScoreTrack(times_s=edges_s[:-1] + 0.5, edges_s=edges_s, valid=valid, logit=logit)
    return Prediction(
        video=video, query=query, qid=qid, duration_s=9.0, presence=0.25 if not moments else 0.75,
        moments=tuple(Moment(start_s=start, end_s=end, score=score) for start, end, score in moments),
        probability=np.array([0.0, 1.0, 0.5, 0.5, 0.25], np.float32), track=track,
    )  # fmt: skip


FOUND = prediction((3723.4567891, 3730.0, 0.987654321), (1.0, 3.0, 0.6), qid="12")
ABSENT = prediction(query="bleeding")


def test_table_says_absent_and_keeps_lines_whole() -> None:
    lines = to_table([FOUND, ABSENT, prediction((0, 0.04, 1), query=NASTY)]).splitlines()
    assert lines[2].split() == ["day", "1/a.mp4", "smoke", "1:02:03.5", "-", "1:02:10.0", "0.99", "0.75"]
    assert lines[3].split() == ["0:01.0", "-", "0:03.0", "0.60"]
    assert lines[4].split() == ["day", "1/a.mp4", "bleeding", "absent", "0.25"]
    assert len(lines) == 6


def test_table_says_absent_only_where_that_is_likely() -> None:
    likely = replace(ABSENT, presence=0.85)
    words = ["none", "sure", "enough"]
    assert to_table([likely]).splitlines()[2].split() == ["day", "1/a.mp4", "bleeding", *words, "0.85"]


def test_jsonl_has_the_best_guess_where_there_is_no_moment() -> None:
    guess = replace(ABSENT, best=Moment(start_s=3.0, end_s=5.0, score=0.25))
    line = json.loads(to_jsonl([guess]))
    assert (line["pred_relevant_windows"], line["pred_exist_score"]) == ([[3.0, 5.0, 0.25]], 0.25)
    assert json.loads(to_json([guess]))["predictions"][0]["moments"] == []
    assert "absent" in to_table([guess])


def test_json_is_strict_and_rounded() -> None:
    answer = json.loads(to_json([FOUND, ABSENT], {"run": "r"}, with_tracks=True))
    assert answer["provenance"] == {"run": "r"}
    found, absent = answer["predictions"]
    assert found["moments"][0] == {"start_s": 3723.457, "end_s": 3730.0, "score": 0.987654}
    assert (absent["moments"], absent["presence"], absent["absent"], absent["qid"]) == ([], 0.25, 0.75, None)
    assert found["track"]["logit"] == [-1.0, 2.0, None, 0.0, 0.0]
    assert len(found["track"]["edges_s"]) == 6
    assert "track" not in json.loads(to_json([FOUND]))["predictions"][0]


def test_jsonl_is_what_official_evaluators_read() -> None:
    lines = [json.loads(line) for line in to_jsonl([FOUND, ABSENT], {"day 1/a.mp4": "a"}).splitlines()]
    assert set(lines[0]) == {
        "qid", "query", "vid", "pred_relevant_windows", "pred_saliency_scores", "pred_exist_score", "qle"
    }  # fmt: skip
    assert (lines[0]["qid"], lines[0]["vid"], lines[0]["qle"]["video"]) == (12, "a", "day 1/a.mp4")
    assert lines[0]["pred_relevant_windows"] == [[3723.457, 3730.0, 0.987654], [1.0, 3.0, 0.6]]
    assert (lines[1]["qid"], lines[1]["pred_relevant_windows"], lines[1]["pred_exist_score"]) == (1, [], 0.25)
    assert [json.loads(to_jsonl([prediction(qid=qid)]))["qid"] for qid in ("007", "a", "-1", "\u0661")] == [
        "007", "a", "-1", "\u0661"
    ]  # fmt: skip


def test_saliency_of_clips_is_the_mean_over_their_seconds() -> None:
    """Rows end at 1, 3, 5, 7, 9 s with 0, 1, .5, .5, .25; clips are 2 s and the last one is cut off at the end."""
    assert saliency(FOUND).tolist() == [0.5, 0.75, 0.5, 0.375, 0.25]
    constant = prediction()
    assert constant.probability is not None
    constant.probability[:] = 0.5
    assert saliency(constant, clip_s=0.7) == pytest.approx([0.5] * 13)


def test_json_says_which_videos_failed() -> None:
    """A program that reads the result sees no note on the terminal."""
    found = json.loads(render("json", [FOUND], failures={"bad.mp4": "no film"}))
    assert found["failures"] == {"bad.mp4": "no film"}
    assert json.loads(to_json([]))["failures"] == {}


def test_csv_comes_back_as_it_was() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([FOUND, ABSENT, prediction((0, 1, 1), query=NASTY)]))))
    assert [row["rank"] for row in rows] == ["1", "2", "0", "1"]
    assert (rows[0]["start_s"], rows[0]["score"], rows[0]["qid"]) == ("3723.457", "0.987654", "12")
    assert (rows[2]["start_s"], rows[2]["presence"]) == ("", "0.25")
    assert rows[3]["query"] == NASTY


@pytest.mark.parametrize("query", ['=HYPERLINK("http://a")', "+1", "-1", "@a", "\t=1"])
def test_csv_runs_nothing_in_a_spreadsheet(query: str) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv([prediction((0, 1, 1), query=query, video="=a.mp4")]))))
    assert (rows[0]["query"], rows[0]["video"]) == (f"'{query}", "'=a.mp4")


def test_carriage_return_ends_no_line_of_csv() -> None:
    """csv.writer of Python 3.11 quotes a line feed but not this, and the row fell in two."""
    rows = list(csv.DictReader(io.StringIO(to_csv([prediction((0, 1, 1), query="smoke\rand, fire")]), newline="")))
    assert [row["query"] for row in rows] == ["smoke\nand, fire"]


def test_terminal_obeys_no_text_of_strangers() -> None:
    text = to_table([prediction((0, 1, 1), query="smoke\x1b[2J", video="a\x07.mp4")])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "smoke\ufffd[2J" in text


def test_vtt_has_cues_in_order_that_nothing_in_a_query_can_break() -> None:
    text = to_vtt([FOUND, prediction((5.0, 5.0, 0.5), (359999.9996, 360000.5, 1), query=NASTY), ABSENT])
    blocks = text.rstrip("\n").split("\n\n")
    assert blocks[0] == "WEBVTT"
    assert blocks[1] == "NOTE absent (0.25): bleeding"
    times = [
        re.fullmatch(r"(\d{2,}:\d\d:\d\d\.\d{3}) --> (\d{2,}:\d\d:\d\d\.\d{3})", block.split("\n")[1])
        for block in blocks[2:]
    ]
    assert all(times)
    assert [time.groups() for time in times if time] == [
        ("00:00:01.000", "00:00:03.000"), ("00:00:05.000", "00:00:05.001"),
        ("01:02:03.457", "01:02:10.000"), ("100:00:00.000", "100:00:00.500"),
    ]  # fmt: skip
    assert blocks[3].split("\n")[2] == 'smoke --&gt; &lt;i&gt;"fire"&lt;/i&gt; &amp; more second line (0.50)'
    assert text.count("-->") == 4
    with pytest.raises(ConfigError, match="2 were searched"):
        to_vtt([FOUND, prediction(video="b.mp4")])


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_takes_nothing_and_ends_its_last_line(kind: str) -> None:
    for found in ([], [FOUND, ABSENT]):
        text = render(kind, found)
        assert text == render(kind, found)
        assert text.endswith("\n") or (kind == "jsonl" and not found)


def test_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.json", "first\n")
    write_text(tmp_path / "new" / "a.json", "second\n")
    assert (tmp_path / "new" / "a.json").read_text() == "second\n"
    assert len(list((tmp_path / "new").iterdir())) == 1
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "new", "a folder stands there")


def test_queries_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "wishes.txt"
    file.write_bytes("\ufeffa green polyp\r\n\n  smoke  \n".encode())
    assert read_queries(file) == (Query(text="a green polyp"), Query(text="smoke"))


def test_queries_may_come_from_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = io.TextIOWrapper(
        io.BytesIO("\ufeffa green polyp\r\n\r\nRauch \u00fcber Wasser\n".encode()), encoding="ascii"
    )
    monkeypatch.setattr("sys.stdin", typed)
    assert read_queries(Path("-")) == (Query(text="a green polyp"), Query(text="Rauch \u00fcber Wasser"))


def test_queries_as_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "val.jsonl"
    file.write_text('{"qid": 3, "query": "smoke", "vid": "a", "relevant_windows": []}\n\n{"query": "fire"}\n')
    assert read_queries(file) == (Query(text="smoke", qid="3", video="a"), Query(text="fire"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query": "a"}\n{"query"\n', "val.jsonl:2: no JSON object"),
        ('{"query": "a"}\n{"text": "b"}\n', "val.jsonl:2: has no text under the key query"),
        ('{"query": "a", "qid": true}\n', "val.jsonl:1: qid is True"),
        ('{"query": "a", "vid": ["b"]}\n', "val.jsonl:1: vid is"),
    ],
)
def test_bad_line_of_a_query_file_is_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "val.jsonl"
    file.write_text(content)
    with pytest.raises(AnnotationError, match=re.escape(message)):
        read_queries(file)


def test_query_file_that_holds_nothing_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(InputError, match="holds no query"):
        read_queries(empty)
    with pytest.raises(InputError, match="cannot be read"):
        read_queries(tmp_path / "missing.txt")
    empty.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="not UTF-8"):
        read_queries(empty)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_queries_are_read_as_windows_programs_save_them(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_bytes("ein grüner Polyp\r\na stent\r\n".encode(encoding))
    assert [query.text for query in read_queries(path)] == ["ein grüner Polyp", "a stent"]


def test_a_csv_moves_no_cursor() -> None:
    found = Prediction(video="a\x1b[2J\x07.mp4", query="q\tr", duration_s=4.0, presence=0.1, moments=())
    assert to_csv([found]).splitlines()[1] == "a\ufffd[2J\ufffd.mp4,,q\tr,0,,,,0.1"
