"""Real films after accidents: what is committed of them is what a straight decode shows, or marked.

Each film is extracted with few rows, so that frames are left out and jumped over on the way, and compared with a decode of every
frame from the first on. `make test-faults` takes the first of these films; QLE_MUTATED_FILMS=300 as many as that.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

import qle
from qle.backbones import BackboneRequest, build_backbone
from qle.cache.reader import Space, Video
from qle.cache.tools.inspect import inspect_cache
from qle.extract.decode.decoder import to_ticks
from qle.extract.decode.probe import probe
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from tests.mutated_films import StraightFrame, mutated, straight_decode, whole_films

NUM_FILMS = int(os.environ.get("QLE_MUTATED_FILMS", "60"))
FILMS_EACH = 20
"""Films in one run of the engine."""
SAMPLINGS = (
    Sampling(mode="fps", fps=1.5),
    Sampling(mode="stride", stride=7),
    Sampling(mode="fps", fps=4),
)


@dataclass
class Comparison:
    """What came of some damaged films."""

    num_rows: int = 0
    """Valid rows that were compared."""
    num_invalid: int = 0
    """Rows that are marked as damaged."""
    num_undefined: int = 0
    """Rows of frames on which two straight decodes do not agree."""
    differing: list[str] = field(default_factory=list)
    """Valid rows that differ from a straight decode."""
    unmarked: list[str] = field(default_factory=list)
    """Valid rows of frames that the decoder flags."""


@pytest.fixture(scope="module")
def films(shared_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return whole_films(shared_videos, tmp_path_factory.mktemp("whole"))


@pytest.mark.faults
@pytest.mark.parametrize("first", range(0, NUM_FILMS, FILMS_EACH))
def test_rows_of_damaged_films_are_those_of_a_straight_decode_or_marked(
    extract, films, tmp_path, first, record_property
):
    folder = tmp_path / "films"
    folder.mkdir()
    for seed in range(first, min(first + FILMS_EACH, NUM_FILMS)):
        mutated(films, folder, seed)
    sampling = SAMPLINGS[first // FILMS_EACH % len(SAMPLINGS)]
    summary = extract(folder, sampling=sampling, tokens=TokenOptions(dtype="float32"), keep_partial=True)
    assert summary.exit_code in (0, 4)
    space = qle.open_cache(Path(summary.cache)).space()
    faults = inspect_cache(Path(summary.cache)).spaces[0].faults
    comparison = Comparison()
    for key in space:
        assert bool(space.video(key).record.source.damaged_rows) == ("damaged" in faults.get(key, ""))
        compare(comparison, space, key, folder / key)
    record_property("comparison", f"{len(space)} films: {comparison}")
    assert comparison.num_rows > 50
    assert comparison.differing == []
    assert comparison.unmarked == []


def compare(comparison: Comparison, space: Space, key: str, path: Path) -> None:
    """Adds one committed video. The tokens of its rows must be those of the frames that a straight decode shows."""
    video = space.video(key)
    straight, other = straight_decode(path), straight_decode(path, num_held=8)
    shown = frames_of_rows(video, path, straight)
    rows = np.flatnonzero(video.valid[:])
    comparison.num_invalid += video.record.source.num_damaged
    flagged = [row for row in rows.tolist() if shown[row].is_flagged]
    comparison.unmarked += [f"{key} row {row}" for row in flagged]
    if not len(rows):
        return
    expected = tokens_of([shown[row].rgb for row in rows.tolist()])
    again = frames_of_rows(video, path, other)
    for row, tokens, wanted in zip(rows.tolist(), video.patch[rows], expected, strict=True):
        if not np.array_equal(shown[row].rgb, again[row].rgb):
            comparison.num_undefined += 1
            continue
        comparison.num_rows += 1
        if not np.allclose(tokens, wanted, atol=1e-5):
            comparison.differing.append(f"{key} row {row}: {np.abs(tokens - wanted).max():.3g}")


def frames_of_rows(video: Video, path: Path, frames: list[StraightFrame]) -> list[StraightFrame]:
    """For each row the frame of a straight decode that carries its stamp, or its number where there are no stamps."""
    info = probe(path, keep_partial=True)
    numbers = video.index[:]
    if not info.has_stamps:
        return [frames[number] for number in numbers.tolist()]
    by_tick = {frame.tick: frame for frame in reversed(frames)}
    return [by_tick[tick] for tick in to_ticks(info.pts_s[numbers], info.time_base).tolist()]


def tokens_of(pictures: list[np.ndarray]) -> np.ndarray:
    """What the built-in backbone makes of these pictures."""
    backbone = build_backbone(BackboneRequest(name="tiny", device="cpu"))
    images = [torch.from_numpy(backbone.preprocess.geometry(rgb, None)[None]) for rgb in pictures]
    with torch.inference_mode():
        return np.stack([backbone.encode(image[None])["patch"][0, 0].numpy() for image in images])
