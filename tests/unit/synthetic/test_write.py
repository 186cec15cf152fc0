"""A folder of made-up videos: whole, resumable after a kill, and not to be mixed with another."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qle.data.annotations import read_annotations
from qle.data.masks import read_masks
from qle.errors import ConfigError, InputError
from qle.extract.decode.decoder import make_decoder, request_frames
from qle.extract.decode.probe import probe
from qle.extract.decode.write import write_video
from qle.synthetic.film import Film
from qle.synthetic.script import SyntheticConfig, write_script
from qle.synthetic.write import write_synthetic

CONFIG = SyntheticConfig(num_train=2, num_val=0, num_test=1, num_composition=1, seconds=5, size=96)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "out"
    summary = write_synthetic(folder, CONFIG, num_processes=1)
    assert (summary.num_videos, summary.num_made) == (4, 4)
    return folder


def _times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


def test_annotations_point_to_videos_and_masks(made: Path) -> None:
    names = {path.stem for path in (made / "annotations").glob("*.jsonl")}
    assert names == {"train", "test", "composition", "paraphrase"}  # no file of a split without videos
    for name in names:
        file = made / "annotations" / f"{name}.jsonl"
        for annotation in read_annotations(file):
            assert (made / "videos" / annotation.video).is_file()
            assert annotation.split == name
            if annotation.masks:
                track = read_masks(file, annotation.masks)
                assert track.masks.any(axis=(1, 2)).all()
                assert len(track.times_s) >= len(annotation.boxes) > 0


def test_encoded_colours_are_the_drawn_ones(made: Path) -> None:
    film = Film(write_script(CONFIG, "train", 1), CONFIG)
    info = probe(made / "videos" / "train" / "001.mp4")
    assert (info.num_frames, info.width, info.height) == (40, 96, 96)
    decoded = dict(make_decoder("pyav").frames(request_frames(info, np.array([0, 17, 39]))))
    for number, rgb in decoded.items():
        drawn = film.frame(number).astype(float).reshape(12, 8, 12, 8, 3).mean((1, 3))
        assert np.abs(rgb.astype(float).reshape(12, 8, 12, 8, 3).mean((1, 3)) - drawn).mean() < 5


def test_equal_frames_are_equal_bytes_each_time(tmp_path: Path) -> None:
    """A second encoding by the same process differed: x264 had rated blocks by what lay in its memory."""
    frames = list(Film(write_script(CONFIG, "train", 1), CONFIG).frames())
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", frames, CONFIG.fps, is_reproducible=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_what_is_there_is_kept_and_what_is_missing_is_made(made: Path) -> None:
    before = _times(made)
    lines = (made / "annotations" / "test.jsonl").read_bytes()
    (made / "videos" / "train" / "000.mp4").unlink()
    (made / "annotations" / "test.jsonl").unlink()
    seen: list[tuple[int, int, str]] = []
    summary = write_synthetic(made, CONFIG, lambda *step: seen.append(step), num_processes=1)
    assert summary.num_made == 1
    assert [step[0] for step in seen] == [1, 2, 3, 4]
    assert {step[1] for step in seen} == {4}
    after = _times(made)
    assert [path for path in after if after[path] != before[path]] == [str(made / "videos" / "train" / "000.mp4")]
    assert (made / "annotations" / "test.jsonl").read_bytes() == lines


def test_other_settings_and_other_folders_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed 0 there, 1 asked"):
        write_synthetic(made, replace(CONFIG, seed=1))
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_synthetic(tmp_path, CONFIG)
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        write_synthetic(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="no videos"):
        write_synthetic(tmp_path / "new", SyntheticConfig(num_train=0, num_val=0, num_test=0, num_composition=0))
    assert not (tmp_path / "new").exists()


KILLED = """
import os, signal
from pathlib import Path
from qle.synthetic.film import Film
from qle.synthetic.script import SyntheticConfig
from qle.extract.decode.write import write_video
from qle.synthetic.write import write_synthetic
frame, count = Film.frame, iter(range(10_000))
def dies(self, number):
    if next(count) == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return frame(self, number)
Film.frame = dies
write_synthetic(Path({folder!r}), {config!r}, num_processes=1)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_whole_videos_and_goes_on(made: Path, tmp_path: Path) -> None:
    """Dies in the middle of the second video; the next run, in two processes, makes the very same files."""
    folder = tmp_path / "out"
    code = KILLED.format(folder=str(folder), config=CONFIG)
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=600)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in folder.rglob("*.mp4")] == ["000.mp4"]
    assert write_synthetic(folder, CONFIG, num_processes=2).num_made == 3
    for path in made.rglob("*.mp4"):
        assert (folder / path.relative_to(made)).read_bytes() == path.read_bytes()
    for path in made.rglob("*.jsonl"):
        assert (folder / path.relative_to(made)).read_bytes() == path.read_bytes()
    record = json.loads((folder / "synthetic.json").read_text())
    assert record["settings"]["num_train"] == 2
