"""Cholec80 files, written in the exact format: phases for every frame, tools for every 25th."""

from pathlib import Path

import pytest

from qle.data.readers.cholec80 import read, read_operations
from qle.data.readers.concepts import CHOLEC80_PHASES, CHOLEC80_TOOLS
from qle.data.readlog import ReadLog
from qle.errors import AnnotationError, InputError

PHASE_NAMES = [concept.label for concept in CHOLEC80_PHASES]
TOOL_NAMES = [concept.label for concept in CHOLEC80_TOOLS]


def write_video(root: Path, number: int, phases: list[str], tools: list[dict[str, int]] | None) -> None:
    folder = root / "phase_annotations"
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{frame}\t{phase}\n" for frame, phase in enumerate(phases))
    (folder / f"video{number:02d}-phase.txt").write_text("Frame\tPhase\n" + rows)
    if tools is not None:
        folder = root / "tool_annotations"
        folder.mkdir(exist_ok=True)
        rows = "".join(
            "\t".join(map(str, [place * 25, *(row.get(name, 0) for name in TOOL_NAMES)])) + "\n"
            for place, row in enumerate(tools)
        )
        (folder / f"video{number:02d}-tool.txt").write_text("Frame\t" + "\t".join(TOOL_NAMES) + "\n" + rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten seconds: six of preparation, three of dissection, one of preparation again; the last row of tools is missing."""
    phases = ["Preparation"] * 150 + ["CalotTriangleDissection"] * 75 + ["Preparation"] * 25
    tools = [{"Grasper": 1}, {"Grasper": 1, "Irrigator": 1}, {}, {"Grasper": 1}, *[{"Hook": 1}] * 5]
    write_video(tmp_path, 3, phases, tools)
    return tmp_path


def test_every_published_query_of_a_video_is_annotated(root: Path) -> None:
    log = ReadLog()
    annotations = {annotation.query: annotation for annotation in read(root, log)}
    assert len(annotations) == 15
    assert all(one.video == "video03" and one.duration_s == 10 for one in annotations.values())
    happening = {query: one.windows for query, one in annotations.items() if one.windows}
    assert happening == {
        "Preparation phase": ((0, 6), (9, 10)),
        "Calot triangle dissection phase": ((6, 9),),
        "a grasper is present": ((0, 2), (3, 4)),
        "an irrigator is present": ((1, 2),),
        "a suction instrument is present": ((1, 2),),
        "a hook cautery is present": ((4, 9),),
    }
    assert all(one.is_absent for query, one in annotations.items() if query not in happening)
    assert log.notes == []  # one missing row of tools is how the files are


def test_synonyms_share_a_concept(root: Path) -> None:
    (operation,) = read_operations(root, ReadLog())
    training, held_out = operation.annotations("training"), operation.annotations("held-out")
    keys = {one.query: one.concept_key for one in training}
    assert keys["an irrigator is present"] == keys["a suction instrument is present"] == "tool/irrigator"
    assert len(held_out) == 14
    assert len({one.qid for one in training + held_out}) == len(training) + 14
    assert not {one.query for one in training} & {one.query for one in held_out}


def test_columns_of_tools_may_stand_in_any_order(root: Path) -> None:
    path = root / "tool_annotations" / "video03-tool.txt"
    before = read(root, ReadLog())
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join([row[0], *row[:0:-1]]) for row in rows) + "\n")
    assert read(root, ReadLog()) == before


def test_tools_that_end_early_are_told(root: Path) -> None:
    write_video(root, 4, ["Preparation"] * 250, [{"Grasper": 1}] * 4)
    log = ReadLog()
    annotations = read(root, log)
    assert [one.windows for one in annotations if one.qid == "video04/tool/grasper/0"] == [((0, 4),)]
    assert log.notes == ["video04: tools are labelled up to 6 s before the end"]


def test_tools_that_end_late_make_the_video_longer(root: Path) -> None:
    write_video(root, 4, ["Preparation"] * 250, [{"Grasper": 1}] * 11)
    grasper = next(one for one in read(root, ReadLog()) if one.qid == "video04/tool/grasper/0")
    assert grasper.duration_s == 251 / 25
    assert grasper.windows == ((0, 251 / 25),)


def test_phases_alone(tmp_path: Path) -> None:
    write_video(tmp_path, 1, ["Preparation"] * 50, None)
    log = ReadLog()
    assert len(read(tmp_path, log)) == 7
    assert log.notes == [f"{tmp_path} has no folder tool_annotations: phases only"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("phase", "\n7\tPreparation", "\n7\tPreparatoin", r"line 9, Phase: expected one of Preparation, .*got 'Preparatoin'"),
        ("phase", "\n7\tPreparation\n", "\n", "line 9, Frame: expected 7, since no frame may be missing, got '8'"),
        ("phase", "\n7\tPreparation", "\n7", "line 9, row: expected 2 cells, got 1"),
        ("phase", "Frame\tPhase", "Frame\tStep", "line 1: expected columns Frame, Phase, got 'Frame.*Step'"),
        ("tool", "\n25\t1", "\n25\t2", "line 3, Grasper: expected one of 0, 1, got '2'"),
        ("tool", "\n25\t1", "\n24\t1", "line 3, Frame: expected 25"),
        ("tool", "SpecimenBag", "Bag", "line 1: expected columns Frame, Grasper, .*SpecimenBag"),
    ],
)  # fmt: skip
def test_wrong_labels(root: Path, file: str, old: str, new: str, message: str) -> None:
    path = root / f"{file}_annotations" / f"video03-{file}.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(AnnotationError, match=message):
        read(root, ReadLog())


def test_a_video_with_wrong_labels_is_left_out_altogether(root: Path) -> None:
    write_video(root, 4, ["Preparation"] * 50, [{}, {"Grasper": 3}])
    log = ReadLog(skip_bad=True)
    assert {one.video for one in read(root, log)} == {"video03"}
    assert "video04 left out, because some of its labels are wrong" in log.notes
    assert len(log.skipped) == 1


def test_a_missing_file_of_tools(root: Path) -> None:
    write_video(root, 4, ["Preparation"] * 50, None)
    with pytest.raises(InputError, match=r"cannot read annotations .*video04-tool\.txt"):
        read(root, ReadLog())
    with pytest.raises(InputError, match=r"holds no phase_annotations/videoNN-phase\.txt"):
        read(root / "phase_annotations", ReadLog())
