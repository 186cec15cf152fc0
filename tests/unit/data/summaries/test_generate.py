"""Files of summaries: what every row says of itself, what is kept, and what a kill leaves."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.data.summaries.extractive import Extractive
from qle.data.summaries.generate import SummariesResult, write_summaries
from qle.data.summaries.levels import LEVELS, Level, Summary
from qle.errors import AnnotationError, ConfigError
from tests.conftest import CHECKOUT

ALL = tuple(LEVELS.values())


class Counting(Extractive):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], str]] = []

    def summarise(self, sentences: Sequence[str], level: Level) -> Summary:
        self.asked.append((tuple(sentences), level.name))
        return super().summarise(sentences, level)


def told(video: str, *sentences: str) -> list[Annotation]:
    return [
        Annotation(
            qid=f"{video}_{number}", video=video, query=sentence, windows=((float(number), number + 2.0),), duration_s=60.0,
            origin={"fps": 29.4, "num_frames": 1764},
        )
        for number, sentence in enumerate(sentences)
    ]  # fmt: skip


VIDEOS = [
    *told("v1", "He takes an egg.", "He breaks the egg into a pan.", "He eats the egg."),
    *told("v2", "She peels an orange.", "She cuts the orange.", "She washes the knife.", "She eats the orange."),
    *told("v3", "A plum is washed.", "The plum is cut."),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_annotations(tmp_path / "fine.jsonl", VIDEOS)
    return tmp_path / "fine.jsonl"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "coarse.jsonl"


def run(source: Path, out: Path, levels: tuple[Level, ...] = ALL, **options: Any) -> tuple[SummariesResult, Counting]:
    summariser = Counting()
    return write_summaries(source, out, summariser, levels, **options), summariser


def test_every_row_says_how_it_came_about(source: Path, out: Path) -> None:
    result, _ = run(source, out)
    assert (result.num_videos, result.num_rows, result.num_made, result.notes) == (3, 9, 9, ())
    rows = read_annotations(out, allow_unlabelled=True)
    assert [row.qid for row in rows] == [f"{video}_{level}" for video in ("v1", "v2", "v3") for level in LEVELS]
    for row in rows:
        assert not row.is_labelled
        assert (row.duration_s, row.video) == (60.0, row.qid[:2])
        origin = dict(row.origin)
        assert len(origin.pop("source")) == 64
        num_sentences = sum(one.video == row.video for one in VIDEOS)
        assert origin == {
            "level": row.qid[3:], "method": "extractive", "version": 1, "num_sentences": num_sentences,
            "num_used": num_sentences, "fps": 29.4, "num_frames": 1764,
        }  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["coarse.jsonl"], "nothing is left beside it"


def test_sentences_stand_in_order_of_time_and_once(tmp_path: Path, out: Path) -> None:
    first, second, third = told("v", "He cuts.", "he takes a knife", "He cuts")
    shuffled = [
        replace(first, windows=((5.0, 6.0),)),
        replace(second, windows=((1.0, 2.0),)),
        replace(third, windows=((9.0, 9.5),)),
        Annotation(qid="never", video="v", query="it rains", windows=()),
    ]
    write_annotations(tmp_path / "fine.jsonl", shuffled)
    _, summariser = run(tmp_path / "fine.jsonl", out, ALL[:1])
    assert summariser.asked == [(("he takes a knife", "He cuts."), "title")]


def test_the_same_command_again_makes_nothing(source: Path, out: Path) -> None:
    run(source, out)
    before = out.stat()
    result, summariser = run(source, out)
    assert summariser.asked == []
    assert (result.num_rows, result.num_made) == (9, 0)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_further_videos_and_levels_are_added(source: Path, out: Path) -> None:
    run(source, out, ALL[:1])
    _, summariser = run(source, out, ALL[:2])
    assert {level for _, level in summariser.asked} == {"sentence"}
    write_annotations(source, [*VIDEOS, *told("v4", "He sings.")])
    result, summariser = run(source, out, ALL[:2])
    assert summariser.asked == [(("He sings.",), "title"), (("He sings.",), "sentence")]
    assert result.num_rows == 8


def test_rows_of_other_sentences_are_not_kept_in_silence(source: Path, out: Path) -> None:
    run(source, out)
    write_annotations(source, [*VIDEOS[:-1], replace(VIDEOS[-1], query="The plum is eaten.")])
    with pytest.raises(ConfigError, match="holds 3 rows that would not be made now"):
        run(source, out)
    result, summariser = run(source, out, overwrite=True)
    assert {sentences for sentences, _ in summariser.asked} == {("A plum is washed.", "The plum is eaten.")}
    assert (result.num_rows, result.num_made) == (9, 3)


def test_foreign_files_are_not_replaced(source: Path, out: Path) -> None:
    out.parent.mkdir()
    for content in ("my notes\n", json.dumps({"qid": 1, "query": "a", "vid": "v"}) + "\n"):
        out.write_text(content)
        with pytest.raises(ConfigError, match="would be replaced\nadd --overwrite"):
            run(source, out)
        assert out.read_text() == content
    run(source, out, overwrite=True)
    assert len(read_annotations(out, allow_unlabelled=True)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("num_summaries", [0, 4, 6, 8])
def test_a_kill_loses_no_finished_video(source: Path, out: Path, num_summaries: int) -> None:
    program = [sys.executable, "-m", "tests.killed_summaries", str(source), str(out), str(num_summaries)]
    assert subprocess.run(program, cwd=CHECKOUT, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    result, summariser = run(source, out)
    assert len(summariser.asked) == result.num_made == 9 - num_summaries // 3 * 3
    whole = out.read_bytes()
    out.unlink()
    run(source, out)
    assert out.read_bytes() == whole
    assert [path.name for path in out.parent.iterdir()] == ["coarse.jsonl"]


def test_a_torn_line_is_made_anew(source: Path, out: Path) -> None:
    run(source, out)
    whole = out.read_bytes()
    out.rename(out.with_name(".coarse.jsonl.part"))
    out.with_name(".coarse.jsonl.part").write_bytes(whole[:-9])
    _, summariser = run(source, out)
    assert len(summariser.asked) == 1
    assert out.read_bytes() == whole


def test_what_nothing_is_said_about_is_told(source: Path, out: Path) -> None:
    class Silent(Extractive):
        def summarise(self, sentences: Sequence[str], level: Level) -> Summary:
            text = "" if level.name == "title" else "He eats."
            return Summary(text=text, num_used=1)

    result = write_summaries(source, out, Silent(), ALL[:2])
    assert result.num_rows == 3
    assert result.notes[0] == "v1: nothing was said at level title, so there is no such row"
    with pytest.raises(AnnotationError, match="nothing was said about any video\nv1: "):
        write_summaries(source, out.with_name("other.jsonl"), Silent(), ALL[:1])


def test_progress_counts_videos(source: Path, out: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    run(source, out, on_progress=lambda *step: steps.append(step))
    assert steps == [(1, 3, "v1"), (2, 3, "v2"), (3, 3, "v3")]


def test_without_a_sentence_there_is_nothing_to_summarise(tmp_path: Path, out: Path) -> None:
    write_annotations(tmp_path / "fine.jsonl", [Annotation(qid="1", video="v", query="it rains", windows=())])
    with pytest.raises(AnnotationError, match="no sentence that happens in some video"):
        run(tmp_path / "fine.jsonl", out)
