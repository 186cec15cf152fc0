"""The pages in examples/ are typed as they stand, in a folder of their own; what they promise comes out.

Each page begins in a shell with `qle` on its path. From then on, commands of `qle` that hold nothing for a shell to read run in
this process: two dozen of them would spend most of their time on importing torch.
"""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from qle.cli.app import app
from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("one_thread")]  # beside other work, processes wait long
EXAMPLES = CHECKOUT / "examples"
READ_BY_SHELLS = "$`~*?[]{}()<>|&;!#\\'"
"""Characters that mean something to a shell; double quotes around plain words mean the same to shlex."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A page whose commands have all ended with 0."""

    folder: Path
    printed: Mapping[str, str]
    """By command: stdout."""

    def output(self, *words: str) -> str:
        """Of the only command that holds all of these words."""
        (found,) = [text for line, text in self.printed.items() if all(word in line for word in words)]
        return found


def commands(page: str) -> list[str]:
    """Whole commands of the blocks that people copy."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line]


def in_shell(line: str, folder: Path) -> str:
    """Stdout of a command that ends with 0."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("QLE_", "PYTEST_"))}
    env = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def in_process(line: str, folder: Path) -> str:
    """The same, without starting Python anew: of `qle` with words that a shell passes on as they are."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        assert not app(shlex.split(line)[1:], standalone_mode=False), line
    return printed.getvalue()


def follow(name: str, folder: Path) -> Followed:
    shutil.copytree(EXAMPLES / name, folder)
    printed: dict[str, str] = {}
    for line in commands((folder / "README.md").read_text()):
        has_met_qle = any(earlier.startswith("qle ") for earlier in printed)
        is_plain = line.startswith("qle ") and not set(line) & set(READ_BY_SHELLS)
        printed[line] = (in_process if has_met_qle and is_plain else in_shell)(line, folder)
    return Followed(folder=folder, printed=printed)


@pytest.fixture(scope="module")
def features(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return follow("features", tmp_path_factory.mktemp("examples") / "features")


@pytest.fixture(scope="module")
def videos(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return follow("videos", tmp_path_factory.mktemp("examples") / "videos")


def measured(table: str, metric: str) -> tuple[float, float]:
    """A number of a printed table, and the highest of its floors."""
    (row,) = re.findall(rf"^ {re.escape(metric)}  +(.*)$", table, re.MULTILINE)
    value, *floors = map(float, re.sub(r"\d\S* - \d\S*", "", row).split())
    return value, max(floors)


def lines_of(table: str) -> list[list[str]]:
    """Cells below the head of a table; what is left out because it stands above is filled in."""
    rows: list[list[str]] = []
    for line in table.splitlines()[2:]:
        cells = re.split(r"  +", line.rstrip())
        missing = rows[-1][: len(rows[-1]) - len(cells) + 1] if not cells[0] else []
        rows.append([*missing, *cells[bool(missing) :]])
    return rows


def seconds(shown: str) -> tuple[float, float]:
    """0:55.5 - 1:02.5 -> (55.5, 62.5)"""
    start, end = (60 * int(minutes) + float(rest) for minutes, rest in re.findall(r"(\d+):([\d.]+)", shown))
    return start, end


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    inside = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, inside) / (max(one[1], other[1]) - min(one[0], other[0]))


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_videos_and_a_table_become_runs_that_beat_their_floors(videos: Followed) -> None:
    rows, moments = (videos.output(f"qle eval --checkpoint runs/{name} --cache") for name in ("rows", "moments"))
    chain = videos.output("--protocol corpus")
    for table, metric, margin in (
        (rows, "frame ap", 0.3), (rows, "segment r1@0.5", 0.1),
        (moments, "moments map", 0.05), (chain, "videos r@1", 0.2), (chain, "chain r1@0.5", 0.3),
    ):  # fmt: skip
        value, floor = measured(table, metric)
        assert value > floor + margin, f"{metric}\n{table}"


def test_what_happens_is_found_in_a_file_and_in_all_videos(videos: Followed) -> None:
    with open(videos.folder / "events.csv", newline="") as file:
        true = {
            (row["video"], row["query"]): (float(row["start"]), float(row["end"]))
            for row in csv.DictReader(file)
            if row["start"]
        }
    (video, query, moment, *_), *_, (_, absent, nothing, *_) = lines_of(videos.output("qle localize"))
    assert overlap(seconds(moment), true[video, query]) > 0.5
    assert (absent, nothing) == ("smoke rises", "absent")
    report = (videos.folder / "report.html").read_text()
    assert "bleeding" in report
    assert "data:image" in report
    hits = [(video, query, seconds(moment)) for query, _, video, moment, *_ in lines_of(videos.output("qle search"))]
    assert len(hits) == 10
    right = [overlap(span, true.get((video, query), (0, 0))) > 0.5 for video, query, span in hits]
    assert sum(right) >= 7, hits


def test_features_of_others_become_a_run_that_beats_its_floors(features: Followed) -> None:
    table = features.output("qle eval --checkpoint")
    for metric, margin in (("moments r1@0.5", 0.3), ("moments map", 0.2), ("moments miou", 0.15)):
        value, floor = measured(table, metric)
        assert value > floor + margin, table
    official, floor = measured(features.output("--protocol qvhighlights"), "official MR-full-R1@0.5")
    assert official == pytest.approx(100 * measured(table, "moments r1@0.5")[0], abs=0.1)
    assert official > floor + 30
    assert zipfile.is_zipfile(features.folder / "model_best.ckpt")


def test_videos_longer_than_a_window_are_searched_to_their_ends(features: Followed) -> None:
    """Windows hold 64 s, and two videos are 200 s long: three of their four moments lie behind the first window."""
    folder = features.folder
    truth = {row["qid"]: row["relevant_windows"][0] for row in read_jsonl(folder / "data" / "highlight_val.jsonl")}
    rows = [row for row in read_jsonl(folder / "submission.jsonl") if row["vid"].endswith("_200.0")]
    assert all(len(row["pred_saliency_scores"]) == 100 for row in rows)
    late = [row for row in rows if truth[row["qid"]][0] > 64]
    assert len(late) == 3
    found = [overlap(row["pred_relevant_windows"][0], truth[row["qid"]]) for row in late]
    assert sum(one > 0.3 for one in found) >= 2, found
