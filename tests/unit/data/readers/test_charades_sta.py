"""Charades-STA lines, the published ones and wrong ones."""

from pathlib import Path

import pytest

from qle.data.annotations import read_annotations
from qle.data.readers.charades_sta import read
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError


def test_published_lines(shared_annotations: Path, tmp_path: Path) -> None:
    """Others publish the same rows as JSONL, with the lengths of the videos: cut there, the windows are theirs."""
    theirs = read_annotations(shared_annotations / "charades_lighthouse.jsonl")
    lines = (shared_annotations / "charades_sta_test.txt").read_text().splitlines(keepends=True)
    assert len(read(shared_annotations / "charades_sta_test.txt", ReadLog())) == len(lines)
    (tmp_path / "lines.txt").write_text("".join(lines[: len(theirs)]))
    lengths = {annotation.video: annotation.duration_s for annotation in theirs}
    (tmp_path / "lengths.csv").write_text(
        "id,length\n" + "".join(f"{name},{value}\n" for name, value in lengths.items())
    )
    ours = read(tmp_path / "lines.txt", ReadLog(), durations=tmp_path / "lengths.csv")
    facts = ("video", "query", "windows", "duration_s")
    for one, other in zip(ours, theirs, strict=True):
        assert [getattr(one, name) for name in facts] == [getattr(other, name) for name in facts]


def test_lengths_come_from_the_table_of_charades(shared_annotations: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("YSKX3 2.0 18.5##a person looks under a mattress.\nYSKX3 1 2##a person sits.\n")
    log = ReadLog()
    first, second = read(lines, log, durations=shared_annotations / "Charades_v1_test.csv")
    assert first.duration_s == second.duration_s == 16.62
    assert first.windows == ((2.0, 16.62),)
    assert log.notes == ["1 windows cut, by up to 1.9 s, where they reached past an end of their video"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("AAAAA 1 2 a person sits", "line: expected `VIDEO start end##sentence`"),
        ("AAAAA 1##a person sits", "line: expected"),
        ("AAAAA 1 2##  ", "line: expected"),
        ("AAAAA 1 x##a person sits", "end: expected a number, got 'x'"),
        ("AAAAA 2 2##a person sits", "does not end after it starts"),
        ("AAAAA nan 2##a person sits", "start: expected a finite number, got 'nan'"),
        ("ZZZZZ 1 2##a person sits", "video: the file of lengths does not know ZZZZZ"),
        ("../AAAAA 1 2##a person sits", "video: expected a name below the folder of the videos"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "lengths.csv").write_text("id,length\nAAAAA,10\n")
    (tmp_path / "lines.txt").write_text(f"AAAAA 1 2##a person stands.\n\n{line}\n")
    with pytest.raises(AnnotationError, match=f"line 3, .*{message}"):
        read(tmp_path / "lines.txt", ReadLog(), durations=tmp_path / "lengths.csv")


def test_known_faults_of_the_published_lines(tmp_path: Path) -> None:
    """Three training lines start behind the end of their video, and one stands the wrong way round."""
    (tmp_path / "lengths.csv").write_text("id,length\nAAAAA,10\n")
    (tmp_path / "lines.txt").write_text("AAAAA 1 2##he sits.\nAAAAA 11 12##he stands.\nAAAAA 9 3##he walks.\n")
    log = ReadLog()
    sits, walks = read(tmp_path / "lines.txt", log, durations=tmp_path / "lengths.csv")
    assert (sits.windows, walks.windows) == (((1, 2),), ((3, 9),))
    assert log.notes == [
        "1 windows turned round, because they ended before they started: " + f"{tmp_path}/lines.txt line 3",
        "1 rows left out, as all published results leave them out: "
        f"{tmp_path}/lines.txt line 2, start: 11 s is behind the end of the video at 10 s",
    ]


def test_a_file_full_of_known_faults_is_another_file(tmp_path: Path) -> None:
    """Ends before starts throughout: columns are swapped, or another clock counts."""
    (tmp_path / "lines.txt").write_text("AAAAA 1 2##he sits.\n" * 20 + "AAAAA 9 3##he walks.\n" * 11)
    with pytest.raises(AnnotationError, match=r"11 windows turned round.*; and 8 more\nfar more than the published"):
        read(tmp_path / "lines.txt", ReadLog())
    assert len(read(tmp_path / "lines.txt", ReadLog(skip_bad=True))) == 31


def test_rows_with_lengths_in_the_keys_of_qvhighlights(shared_annotations: Path) -> None:
    path = shared_annotations / "charades_lighthouse.jsonl"
    assert read(path, ReadLog()) == read_annotations(path)


def test_wrong_lengths(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("AAAAA 1 2##a person stands.\n")
    for text, message in (
        ("id,len\nA,1\n", "expected columns id and length"),
        ("id,length\nA,x\n", "expected a number"),
        ("id,length\nA,0\n", "expected more than 0 s"),
    ):
        (tmp_path / "lengths.csv").write_text(text)
        with pytest.raises(AnnotationError, match=f"line 2.*{message}"):
            read(tmp_path / "lines.txt", ReadLog(), durations=tmp_path / "lengths.csv")
