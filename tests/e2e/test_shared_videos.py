"""Real and awkward files, extracted whole: the table in their README is the truth."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import qle
from qle.extract.request import TokenOptions

ROW = re.compile(
    r"\| (?P<files>[\w., -]+) \| (?P<codec>[^|]+) \| (?P<size>[^|]+) \| (?P<frames>[^|]+) \| (?P<times>[^|]+) \| (?P<step>[^|]+)"
    r" \| (?P<what>[^|]+) \|"
)


@pytest.fixture(scope="module")
def table(shared_videos: Path) -> dict[str, re.Match]:
    lines = (shared_videos / "README.md").read_text().splitlines()
    rows = [match for line in lines if (match := ROW.fullmatch(line)) and "." in match["files"]]
    return {name: match for match in rows for name in match["files"].split(", ")}


def test_every_file_ends_as_its_readme_says(extract, shared_videos, table):
    summary = extract(shared_videos, tokens=TokenOptions(tokens="frame"), num_workers=2)
    space = qle.open_cache(Path(summary.cache)).space()
    assert sorted(table) == sorted(path.name for path in shared_videos.iterdir() if path.suffix != ".md")
    for name, truth in table.items():
        if "recorded as failed" in truth["what"]:
            assert name in summary.spaces[0].failures
            continue
        video = space.video(name)
        assert np.isfinite(video.frame[:]).all()
        if "best stream" in truth["what"]:  # its times in the table are those of the other stream
            assert video.num_rows == int(truth["frames"].split()[-1])
            continue
        assert video.num_rows == int(truth["frames"]), name
        first, last = ([*map(float, re.findall(r"[\d.]*\d", truth["times"]))] * 2)[:2]
        np.testing.assert_allclose([video.pts[0], video.pts[-1]], [first, last], atol=6e-4, err_msg=name)
    assert summary.spaces[0].states["failed"] == len(table) - len(space)


def test_failures_say_what_was_decoded_and_expected(extract, shared_videos):
    summary = extract(
        *(shared_videos / name for name in ("corrupt.mp4", "truncated.mp4", "audio-only.mp4", "empty.mp4"))
    )
    lines = (Path(summary.cache) / summary.spaces[0].space / "errors.jsonl").read_text().splitlines()
    records = {record["key"]: record for record in map(json.loads, lines)}
    found = {
        key: (record["kind"], record["frames_decoded"], record["frames_expected"]) for key, record in records.items()
    }
    assert found == {
        "corrupt.mp4": ("decode", 28, 50),
        "truncated.mp4": ("truncated", 62, 420),
        "audio-only.mp4": ("no-video", None, None),
        "empty.mp4": ("open", None, None),
    }
