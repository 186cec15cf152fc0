"""The made-up videos can be decoded, hold what they claim, and their tokens become a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qle import demo
from qle.cache.colours import TokenColours
from qle.extract.decode import make_decoder, request_frames
from qle.extract.decode_probe import probe
from tests.running import command


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoVideo:
    return demo.make_videos(tmp_path_factory.mktemp("demo"), num_videos=1, seconds=2.0)[0]


def test_video_has_the_promised_frames(video: demo.DemoVideo) -> None:
    info = probe(video.path)
    assert (info.num_frames, info.width, info.height) == (50, demo.WIDTH, demo.HEIGHT)
    assert np.diff(info.pts_s) == pytest.approx(1 / demo.FPS)
    assert not list(video.path.parent.glob(".*"))


def test_event_is_visible_in_its_interval_only(video: demo.DemoVideo) -> None:
    """The polyp is the only large thing that is bright and yellowish."""
    (event,) = video.events
    assert event.name == "polyp"
    assert 0 < event.start_s < event.end_s < 2.0
    middle_s = (event.start_s + event.end_s) / 2
    numbers = np.array([0, round(middle_s * demo.FPS), 49])
    frames = dict(make_decoder("pyav").frames(request_frames(probe(video.path), numbers)))
    pale = [np.mean((frames[n][..., 1] > 140) & (frames[n][..., 2] < frames[n][..., 1] - 20)) for n in numbers]
    assert pale[1] > 0.02
    assert max(pale[0], pale[2]) < 0.008  # glints


def test_equal_seeds_give_equal_events(tmp_path: Path) -> None:
    first = demo.make_videos(tmp_path / "a", num_videos=3, seconds=0.2, seed=5)
    again = demo.make_videos(tmp_path / "b", num_videos=3, seconds=0.2, seed=5)
    other = demo.make_videos(tmp_path / "c", num_videos=3, seconds=0.2, seed=6)
    assert [video.events for video in first] == [video.events for video in again]
    assert [video.events for video in first] != [video.events for video in other]
    assert {event.name for video in first for event in video.events} == set(demo.EVENTS)


def test_token_picture_shows_one_column_a_time(video: demo.DemoVideo, tmp_path: Path, rng: np.random.Generator) -> None:
    patch = rng.normal(size=(8, 5, 7, 12)).astype(np.float16)
    index = np.arange(0, 48, 6)
    path = demo.token_picture(tmp_path / "tokens.png", video.path, patch, index / demo.FPS, index, num_times=4)
    with Image.open(path) as sheet:
        assert sheet.size == (6 + 4 * (240 + 6), 2 * (180 + 6) + 22)


def test_colours_separate_what_differs(rng: np.random.Generator) -> None:
    """Two kinds of tokens in a few noisy channels: every colour tells the kind, the same in each frame."""
    kind = rng.integers(2, size=(4, 6, 6))
    tokens = kind[..., None] * np.linspace(3, 5, 16) + rng.normal(0, 0.1, (4, 6, 6, 16))
    colours = TokenColours.fit(tokens)
    red = colours.apply(tokens)[..., 0].astype(int)
    assert red[kind == 1].min() - red[kind == 0].max() > 150
    assert np.array_equal(colours.apply(tokens[2]), colours.apply(tokens)[2])


def test_colours_of_equal_tokens_are_no_error() -> None:
    tokens = np.ones((3, 2, 2, 2))
    assert np.unique(TokenColours.fit(tokens).apply(tokens)).size == 1


def test_a_demo_whose_extraction_fails_ends_as_that_does(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"no video")
    ended = command("demo", tmp_path, "--videos", 1, "--seconds", 0.2)
    assert ended.returncode == 4
    assert not (tmp_path / "tokens.png").exists()
