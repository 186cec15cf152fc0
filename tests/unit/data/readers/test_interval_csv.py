"""Tables of intervals as people write them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qle.data.annotations import Annotation
from qle.data.readers.interval_csv import read
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError, InputError


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "events.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_rows_of_one_query_are_one_annotation(table: Callable[[str], Path]) -> None:
    path = table(
        "video,query,start,end\na.mp4,a polyp,83.5,1:31\nb.mp4,a polyp,1,2\n\na.mp4,a polyp,0:00:02,3\na.mp4,bleeding,,\n"
    )
    assert read(path, ReadLog()) == [
        Annotation(qid="0", video="a.mp4", query="a polyp", windows=((2, 3), (83.5, 91))),
        Annotation(qid="1", video="b.mp4", query="a polyp", windows=((1, 2),)),
        Annotation(qid="2", video="a.mp4", query="bleeding", windows=()),
    ]


def test_names_and_delimiters_are_a_matter_of_taste(table: Callable[[str], Path]) -> None:
    log = ReadLog()
    path = table(
        "\ufeffVideo ID;Caption;Start time;End time;Subset;Label;Length;qid;note\r\n"
        'v1;"first; then second";1;2;val;two things;60;x7;hm\r\nv1;"first; then second";5;6;;;;;\r\n'
    )
    assert read(path, log) == [
        Annotation(
            qid="x7", video="v1", query="first; then second", windows=((1, 2), (5, 6)), duration_s=60, split="val",
            concept="two things",
        )
    ]  # fmt: skip
    assert log.notes == [f"{path}: columns that mean nothing here: note"]


def test_a_label_is_the_query_where_there_is_no_other(table: Callable[[str], Path]) -> None:
    (annotation,) = read(table("file\tlabel\tbegin\tstop\na\tsmoke\t1\t2\n"), ReadLog())
    assert (annotation.query, annotation.concept) == ("smoke", "smoke")


def test_frames(table: Callable[[str], Path]) -> None:
    path = table("video_id,text_query,start_frame,end_frame\nvideo01,a grasper is present,0,24\n")
    assert read(path, ReadLog(), fps=25)[0].windows == ((0, 1),)
    with pytest.raises(AnnotationError, match=r"line 2, start_frame: counts frames: .* --fps"):
        read(path, ReadLog())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,1,2,", "query: missing"),
        (",q,1,2,", "video: missing"),
        ("a,q,1,,", "end: missing, though the other end is there"),
        ("a,q,one,2,", "start: expected a number, got 'one'"),
        ("a,q,1,nan,", "end: expected a finite number, got 'nan'"),
        ("a,q,1:75,2:00,", r"start: expected seconds, or \[h:\]mm:ss, got '1:75'"),
        ("a,q,1:-5,2:00,", "start: expected seconds"),
        ("a,q,\u00b2:10,2:00,", "start: expected seconds"),
        (f"a,q,{'9' * 5000}:10,2:00,", "start: expected seconds"),
        ("a,q,5,4,", r"relevant_windows: \[5, 4\] does not end after it starts"),
        ("a,q,5,40,30", "reaches 10 s out of the video of 30 s"),
        ("a,q,1", "row: 3 cells for 5 columns"),
        ("a,q,1,2,3,4", "row: 6 cells for 5 columns"),
        ("a,good,,,", "start: line 2 and this one: one says that it never happens"),
        ("a,good,3,4,31", "duration: '31', but line 2, about the same video and query, says '30'"),
    ],
)
def test_wrong_rows(table: Callable[[str], Path], row: str, message: str) -> None:
    path = table(f"video,query,start,end,duration\na,good,1,2,30\n{row}\n")
    with pytest.raises(AnnotationError, match=message) as caught:
        read(path, ReadLog())
    assert str(caught.value).startswith(f"{path} line 3, ")


def test_a_length_that_comes_after_the_window_is_the_length_of_the_video(table: Callable[[str], Path]) -> None:
    with pytest.raises(
        AnnotationError, match=r"line 2, relevant_windows: \[1, 50\] reaches 40 s out of the video of 10 s"
    ):
        read(table("video,query,start,end,duration\na,q,1,50,\na,q,2,3,10\n"), ReadLog())


def test_a_query_with_a_wrong_row_is_left_out_altogether(table: Callable[[str], Path]) -> None:
    """Its other intervals alone would say that nothing happens where the wrong row is."""
    log = ReadLog(skip_bad=True)
    path = table("video,query,start,end\na,q,1,2\na,q,9,8\na,other,3,4\n")
    assert [one.query for one in read(path, log)] == ["other"]
    assert log.skipped == [f"{path} line 3, relevant_windows: [9, 8] does not end after it starts"]
    assert log.notes[0] == "1 queries left out altogether, because one of their rows is wrong"


def test_the_first_row_may_be_the_wrong_one(table: Callable[[str], Path]) -> None:
    with pytest.raises(AnnotationError, match="line 2, row: 2 cells for 4 columns"):
        read(table("video,query,start,end\na,q\nb,q,1,2\n"), ReadLog())


def test_the_same_qid_for_two_queries(table: Callable[[str], Path]) -> None:
    with pytest.raises(AnnotationError, match="line 3, qid: '7' stands in line 2 too"):
        read(table("video,query,start,end,qid\na,q,1,2,7\nb,q,1,2,7\n"), ReadLog())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,start,end\na,1,2\n", r"line 1: no column for the query \(query, text_query"),
        ("video,query,start\na,q,1\n", r"line 1: no column for the end \(end, end_s"),
        ("video,query,start,end,end\na,q,1,2,3\n", "line 1: a column is there twice"),
        ("video,query,start,end\n", "holds no interval"),
        ("", "holds no interval"),
        ('video,query,start,end\na,"q,1,2\n', "line 2: no CSV"),
    ],
)
def test_wrong_tables(table: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(table(text), ReadLog())


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read annotations .*none"):
        read(tmp_path / "none", ReadLog())
    (tmp_path / "latin.csv").write_bytes(b"video,query,start,end\na,caf\xe9,1,2\n")
    with pytest.raises(AnnotationError, match=r"line 2 is not UTF-8 text.*\n.*CSV UTF-8"):
        read(tmp_path / "latin.csv", ReadLog())


SPREADSHEET = 'video;query;start;end\r\nop 1;grüner Polyp;0:01,5;83,25\r\nop 1;"Clip, blau";2;4,0\r\n'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_table_is_read_as_spreadsheets_save_it(encoding: str, sign: str, tmp_path: Path) -> None:
    """Semicolons or tabs between cells, decimal commas, UTF-16 or UTF-8 with a mark, lines that end with two signs."""
    path = tmp_path / "events.csv"
    path.write_bytes(SPREADSHEET.replace(";", sign).encode(encoding))
    first, second = read(path, ReadLog())
    assert (first.query, first.windows, second.query, second.windows) == (
        "grüner Polyp", ((1.5, 83.25),), "Clip, blau", ((2.0, 4.0),)
    )  # fmt: skip


def test_a_decimal_comma_between_commas_names_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text('video,query,start,end\na,b,"1,5",2\n')
    with pytest.raises(AnnotationError, match=r"line 2, start: expected a number, with a decimal point, got '1,5'"):
        read(path, ReadLog())
