"""Small real videos, and runs over them in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qle.backbones import BackboneRequest
from qle.extract.decode.write import write_video
from qle.extract.device import OnExtracting
from qle.extract.request import ExtractRequest, TokenOptions
from qle.extract.run import ExtractSummary, run
from qle.extract.sampling import Sampling
from tests.running import LONG_FRAMES

FPS = 10


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 (41 frames), b.mp4 (3) and below/a.mp4 (23), 96x64 at 10 fps, each frame with its own pattern."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "below").mkdir()
    for seed, (name, num_frames) in enumerate([("a.mp4", 41), ("b.mp4", 3), ("below/a.mp4", 23)]):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 255, (num_frames, 4, 6, 3), dtype=np.uint8)
        write_video(folder / name, (block.repeat(16, axis=0).repeat(16, axis=1) for block in blocks), FPS)
    return folder


@pytest.fixture(scope="session")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """long.mp4 of LONG_FRAMES frames beside two short ones."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    for name, num_frames in (("long.mp4", LONG_FRAMES), ("short1.mp4", 60), ("short2.mp4", 61)):
        blocks = rng.integers(0, 255, (num_frames, 2, 3, 3), dtype=np.uint8)
        write_video(folder / name, (block.repeat(32, axis=0).repeat(32, axis=1) for block in blocks), 10)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films, caches and runs for every command that writes."""
    from tests.writing_world import make_world  # which imports torch

    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.fixture
def extract(small_videos: Path, tmp_path: Path) -> Callable[..., ExtractSummary]:
    """Runs the engine in this process; keyword arguments replace fields of the request."""

    def call(
        *inputs: Path,
        cache: Path = tmp_path / "cache",
        on_progress: OnExtracting = lambda progress: None,
        **changes: object,
    ) -> ExtractSummary:
        fields: dict = {
            "inputs": tuple(str(path) for path in inputs or (small_videos,)),
            "cache": cache,
            "backbones": (BackboneRequest(name="tiny"),),
            "sampling": Sampling(mode="native"),
            "tokens": TokenOptions(),
            "devices": ("cpu",),
            "num_workers": 1,
            "durability": "none",
        }
        return run(ExtractRequest(**(fields | changes)), on_progress)

    return call
