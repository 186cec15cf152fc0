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
        ("AAAAA 3 2##a person sits", "does not end after it starts"),
        ("ZZZZZ 1 2##a person sits", "video: the file of lengths does not know ZZZZZ"),
        ("AAAAA 11 12##a person sits", "2 s out of the video of 10 s"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "lengths.csv").write_text("id,length\nAAAAA,10\n")
    (tmp_path / "lines.txt").write_text(f"AAAAA 1 2##a person stands.\n\n{line}\n")
    with pytest.raises(AnnotationError, match=f"line 3, .*{message}"):
        read(tmp_path / "lines.txt", ReadLog(), durations=tmp_path / "lengths.csv")


def test_wrong_lengths(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("AAAAA 1 2##a person stands.\n")
    for text, message in (
        ("id,len\nA,1\n", "expected columns id and length"),
        ("id,length\nA,x\n", "expected a number"),
    ):
        (tmp_path / "lengths.csv").write_text(text)
        with pytest.raises(AnnotationError, match=f"line 2.*{message}"):
            read(tmp_path / "lines.txt", ReadLog(), durations=tmp_path / "lengths.csv")
