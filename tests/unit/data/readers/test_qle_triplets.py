"""QLE's triplets, there and back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qle.data.annotations import Annotation
from qle.data.readers.qle_triplets import read
from qle.data.readlog import ReadLog
from qle.data.writers.triplets import write_triplets
from qle.errors import AnnotationError, InputError

HEADER = "frame_path,text_query,relevance_label\n"


def row(frame: int, query: str, label: str, video: str = "CHOLEC80__video01") -> str:
    return f"/data/extracted_frames/{video}/frame_{frame:07d}.jpg,{query},{label}\n"


def write(folder: Path, *rows: str) -> Path:
    path = folder / "triplets.csv"
    path.write_text(HEADER + "".join(rows))
    return path


def test_frames_become_windows(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row(10, "scissors are present", "1.0"), row(0, "scissors are present", "1.0"), row(5, "scissors are present", "1.0"),
        row(20, "scissors are present", "1.0"), row(0, '"a hook, or cautery"', "0.0"), row(15, "Retraction phase", "0.0"),
        row(5, "Retraction phase", "1.0", "video02"),
    )  # fmt: skip
    scissors, retraction = "tool/scissors", "phase/gallbladder-retraction"
    assert read(path, ReadLog()) == [
        Annotation(
            qid="0", video="video01", query="scissors are present", windows=((0, 0.6), (0.8, 1.0)), concept=scissors
        ),
        Annotation(qid="1", video="video01", query="a hook, or cautery", windows=()),
        Annotation(qid="2", video="video01", query="Retraction phase", windows=(), concept=retraction),
        Annotation(qid="3", video="video02", query="Retraction phase", windows=((0.2, 0.4),), concept=retraction),
    ]


def test_contradictions_are_counted_and_relevant(tmp_path: Path) -> None:
    log = ReadLog()
    path = write(
        tmp_path, row(0, "a", "0.0"), row(0, "a", "1.0"), row(5, "a", "1.0"), row(5, "a", "1.0"), row(5, "a", "0")
    )
    assert read(path, log)[0].windows == ((0, 0.4),)
    assert log.notes == ["2 frames are called relevant and irrelevant to the same words; they were taken as relevant"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("somewhere/0.txt/,a,1.0\n", "frame_path: expected .*VIDEO/frame_NUMBER.jpg, got 'somewhere/0.txt/'"),
        (row(5, "a", "0.5"), "relevance_label: expected 1.0 or 0.0, got '0.5'"),
        (row(5, "a", ""), "relevance_label: expected 1.0 or 0.0, got ''"),
        (row(5, " ", "1.0"), "text_query: expected words, got ' '"),
        ("v/frame_99999999999999999999.jpg,a,1.0\n", "frame_path: expected"),
    ],
)
def test_wrong_rows(tmp_path: Path, wrong: str, message: str) -> None:
    path = write(tmp_path, row(0, "a", "1.0"), wrong, row(10, "a", "1.0"))
    with pytest.raises(AnnotationError, match=f"line 3, {message}"):
        read(path, ReadLog())
    log = ReadLog(skip_bad=True)
    assert read(path, log)[0].windows == ((0, 0.2), (0.4, 0.6))
    assert len(log.skipped) == 1


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read annotations"):
        read(tmp_path / "none.csv", ReadLog())
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AnnotationError, match="expected a CSV with columns frame_path"):
        read(tmp_path / "other.csv", ReadLog())
    with pytest.raises(AnnotationError, match="holds no row"):
        read(write(tmp_path), ReadLog())
    with pytest.raises(AnnotationError, match="frame 5 is not one of every 25: give the stride"):
        read(write(tmp_path, row(5, "a", "1")), ReadLog(), stride=25)


runs = st.lists(st.integers(0, 39), max_size=8, unique=True)


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(["a", "b", "c, d", "e"]), runs, min_size=1), st.integers(0, 3))
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, happening: dict[str, list[int]], negatives: int
) -> None:
    annotations = []
    for number, (query, steps) in enumerate(happening.items()):
        mask = np.isin(np.arange(41), steps)
        starts = np.flatnonzero(mask & ~np.roll(mask, 1))
        ends = np.flatnonzero(~mask & np.roll(mask, 1))
        windows = tuple(
            (start * 5 / 25, end * 5 / 25) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        )
        annotations.append(Annotation(qid=str(number), video="video07", query=query, windows=windows, duration_s=8.0))
    path = tmp_path_factory.getbasetemp() / "triplets.csv"
    write_triplets(path, annotations, num_negatives=negatives)
    back = {one.query: one.windows for one in read(path, ReadLog())}
    assert back == {one.query: one.windows for one in annotations}


def test_published_texts_share_their_concept(tmp_path: Path) -> None:
    """The irrigator has two texts: without a concept, training would ask for one where the other happens, as a negative."""
    path = tmp_path / "t.csv"
    texts = ("an irrigator is present", "a suction instrument is present", "something of my own")
    rows = [f"x/CHOLEC80__video01/frame_0000025.jpg,{text},1.0" for text in texts]
    path.write_text("\n".join(["frame_path,text_query,relevance_label", *rows]) + "\n")
    assert [one.concept for one in read(path, ReadLog())] == ["tool/irrigator", "tool/irrigator", ""]


def test_a_synonym_of_what_happens_is_never_a_negative(tmp_path: Path) -> None:
    same = {"video": "v", "duration_s": 40.0, "concept": "irrigator", "windows": ((10.0, 20.0),)}
    annotations = [
        Annotation(qid="1", query="an irrigator", **same),
        Annotation(qid="2", query="suction", **same),
        Annotation(qid="3", video="v", query="a hook", windows=(), duration_s=40.0),
    ]
    num_rows = write_triplets(tmp_path / "t.csv", annotations, num_negatives=2)
    rows = [line.split(",") for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert len(rows) == num_rows
    asked = {(path, query) for path, query, _ in rows}
    assert len(asked) == len(rows)
    for frame in range(250, 500, 5):
        labels = {query: label for path, query, label in rows if path.endswith(f"/frame_{frame:07d}.jpg")}
        assert labels == {"an irrigator": "1.0", "suction": "1.0", "a hook": "0.0"}
    again = tmp_path / "again.csv"
    write_triplets(again, annotations, num_negatives=2)
    assert again.read_bytes() == (tmp_path / "t.csv").read_bytes()


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="neither duration nor windows"):
        write_triplets(tmp_path / "t.csv", [Annotation(qid="1", video="v", query="q", windows=())])
    with pytest.raises(AnnotationError, match="no labelled annotations"):
        write_triplets(tmp_path / "t.csv", [Annotation(qid="1", video="v", query="q", windows=(), is_labelled=False)])
    assert list(tmp_path.iterdir()) == []
