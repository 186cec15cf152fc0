"""Several streams become one vector a clip, by one transform that the run keeps."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from qle.cache.reader import Cache, open_cache
from qle.cache.spaces import create_space
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.data.annotations import Annotation
from qle.data.streams.features import StreamSet, VideoClips, window_features, window_of, windows_of
from qle.data.streams.recipe import FeatureRecipe, StreamChoice
from qle.errors import AnnotationError, CacheMismatchError, CacheMissingError, ConfigError
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.types import SpaceSpec, Stream
from tests import tiny_cache as tiny

CONFIG = MomentDataConfig()


def write_features(root: Path, name: str, videos: dict[str, np.ndarray], **options: object) -> None:
    """A space of imported features; 2 s a clip unless told otherwise."""
    folder = root.parent / f"{name} files"
    for key, values in videos.items():
        path = folder / f"{key}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, features=values)
    import_features([folder], root, ImportOptions(name=name, **({"clip_length_s": 2.0} | options)))  # type: ignore[arg-type]


def noise(num_rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float16)


def opened(cache: Cache, *names: str, config: MomentDataConfig = CONFIG) -> StreamSet:
    return StreamSet.open(cache, [StreamChoice.parse(name) for name in names], config)


def unit(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float32)
    return wide / (np.linalg.norm(wide, axis=1, keepdims=True) + 1e-5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Two imported spaces; of "b" one stream is a clip shorter, "c" is in one only."""
    root = tmp_path_factory.mktemp("features") / "cache"
    write_features(root, "motion", {"x_60.0_210.0": noise(10, 6), "b": noise(9, 6, 1), "c": noise(3, 6)})
    write_features(root, "image", {"x_60.0_210.0": noise(10, 4, 2), "b": noise(10, 4, 3)})
    return open_cache(root)


def test_streams_are_normalised_and_joined_in_the_order_in_which_they_are_named(cache: Cache) -> None:
    streams = opened(cache, "motion", "image+tef")
    assert (streams.recipe.dim, len(streams.spaces), streams.is_float16) == (12, 2, True)
    clips = streams.clips("x_60.0_210.0")
    np.testing.assert_allclose(
        clips.features, np.concatenate([unit(noise(10, 6)), unit(noise(10, 4, 2))], axis=1), rtol=1e-6
    )
    assert clips.valid.all()
    other = opened(cache, "image", "motion").clips("x_60.0_210.0")
    np.testing.assert_array_equal(other.features, np.roll(clips.features, 4, axis=1))


def test_imported_clips_lie_where_they_were_imported_to(cache: Cache) -> None:
    clips = opened(cache, "image").clips("b")
    np.testing.assert_array_equal(clips.edges_s, np.arange(11) * 2.0)
    assert clips.duration_s == 20


def test_the_longer_stream_is_cut_to_the_shorter_one(cache: Cache) -> None:
    for names in (("motion", "image"), ("image", "motion")):
        clips = opened(cache, *names).clips("b")
        np.testing.assert_array_equal(clips.edges_s, np.arange(10) * 2.0)
        assert (clips.features.shape, clips.duration_s) == ((9, 10), 18)


def test_videos_that_one_space_lacks_are_told(cache: Cache) -> None:
    streams = opened(cache, "motion", "image")
    assert streams.keys() == ("b", "x_60.0_210.0")
    assert "1 of 3 videos" in streams.notes[0]
    rows = [Annotation(qid=str(n), video=video, query="a", windows=()) for n, video in enumerate("bc")]
    with pytest.raises(AnnotationError, match=r"1 of the 2 annotated videos .*'c'"):
        streams.match(rows)
    found, missing = streams.match(rows, allow_missing=True)
    assert (list(found), missing) == (["b"], ["c"])
    with pytest.raises(CacheMissingError, match="no video 'c'"):
        streams.clips("c")


def test_windows_may_end_with_the_clip_that_is_not_there(cache: Cache) -> None:
    streams = opened(cache, "motion")
    row = Annotation(qid="1", video="b", query="a", windows=((16.0, 20.0),))
    assert list(streams.match([row])[0]) == ["b"]
    with pytest.raises(AnnotationError, match="lie outside"):
        streams.match([replace(row, windows=((16.0, 23.0),))])


def test_names_of_files_fit_names_of_videos(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    write_features(root, "one", {"ward/v.mp4": noise(4, 2), "y_1.0_2.0": noise(4, 2), "y_1.0_2.5": noise(4, 2)})
    write_features(root, "two", {"ward/v": noise(4, 3), "y_1.0_2.0.mp4": noise(4, 3), "y_1.0_2.5": noise(4, 3)})
    assert opened(open_cache(root), "one", "two").keys() == ("ward/v.mp4", "y_1.0_2.0", "y_1.0_2.5")
    assert opened(open_cache(root), "two", "one").clips("ward/v").num_clips == 4
    write_features(root, "three", {"ward/v.mp4": noise(4, 3), "ward/v.avi": noise(4, 3)})
    with pytest.raises(CacheMismatchError, match=r"'ward/v' fits 2 videos"):
        opened(open_cache(root), "two", "three").keys()
    write_features(root, "four", {"z": noise(4, 3)})
    with pytest.raises(CacheMismatchError, match="no video is in all"):
        opened(open_cache(root), "two", "four").keys()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("motion", "motion:frame"), "named twice"),
        (("motion:patch",), "has no stream 'patch'; it has frame"),
        (("other",), "no space begins with"),
        ((), "several spaces fit"),
    ],
)
def test_streams_that_cannot_be(cache: Cache, names: Sequence[str], message: str) -> None:
    with pytest.raises((ConfigError, CacheMissingError), match=message):
        opened(cache, *names)


def test_clips_of_other_lengths_do_not_go_together_unless_they_are_averaged(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    write_features(root, "slow", {"a": noise(5, 3)})
    write_features(root, "fast", {"a": noise(10, 2, 1)}, clip_length_s=1.0)
    cache = open_cache(root)
    with pytest.raises(ConfigError, match=r"clip_length_s 2.0.*clip_length_s 1.0[^$]*data.clip_s"):
        opened(cache, "slow", "fast")
    clips = opened(cache, "slow", "fast", config=MomentDataConfig(clip_s=2.0)).clips("a")
    np.testing.assert_array_equal(clips.edges_s, np.arange(6) * 2.0)
    np.testing.assert_allclose(clips.features[:, :3], unit(noise(5, 3)), rtol=1e-6)
    means = noise(10, 2, 1).astype(np.float32).reshape(5, 2, 2).mean(axis=1)
    np.testing.assert_allclose(clips.features[:, 3:], unit(means), rtol=1e-5)


def test_files_that_bring_their_own_times_are_compared_video_by_video(tmp_path: Path) -> None:
    for name, shift in (("one", 0.0), ("two", 0.2), ("three", 1.5)):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "a.npz", features=noise(4, 2), pts=np.arange(4) * 2 + shift * np.arange(4))
        import_features([tmp_path / name], tmp_path / "cache", ImportOptions(name=name))
    cache = open_cache(tmp_path / "cache")
    assert opened(cache, "one", "two").clips("a").num_clips == 4
    with pytest.raises(CacheMismatchError, match=r"video 'a'.*lie up to 4.5 s apart"):
        opened(cache, "one", "three").clips("a")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Rows at 2 a second from 0.25 s on, every tenth not valid, as of a real extraction."""
    root = tmp_path_factory.mktemp("extracted") / "cache"
    tiny.commit_video(create_space(root, tiny.tiny_spec()), "a", num_rows=40)
    return open_cache(root)


def test_maps_are_averaged_and_rows_that_were_not_on_screen_take_no_part(extracted: Cache) -> None:
    values = tiny.tiny_values(40)
    maps = values["patch"].astype(np.float16).astype(np.float32).mean(axis=(1, 2))
    patch = opened(extracted, "tiny:patch").clips("a")
    assert patch.valid.tolist() == [k % 10 != 9 for k in range(40)]
    np.testing.assert_allclose(patch.features[patch.valid], unit(maps)[patch.valid], rtol=1e-4)
    assert not patch.features[~patch.valid].any()
    assert opened(extracted, "tiny").recipe.parts[0].stream == "frame"
    clips = opened(extracted, "tiny:patch", config=MomentDataConfig(clip_s=2.0)).clips("a")
    assert clips.valid.all()
    expected = [maps[4 * k : 4 * k + 4][patch.valid[4 * k : 4 * k + 4]].mean(axis=0) for k in range(10)]
    np.testing.assert_allclose(clips.features, unit(np.stack(expected)), rtol=1e-4)


def test_clips_shorter_than_rows_show_the_nearest_row(extracted: Cache) -> None:
    rows = opened(extracted, "tiny").clips("a")
    clips = opened(extracted, "tiny", config=MomentDataConfig(clip_s=0.25)).clips("a")
    assert clips.num_clips == 80
    np.testing.assert_array_equal(clips.features[::2][rows.valid], rows.features[rows.valid])
    assert clips.edges_s[-1] == pytest.approx(20)


def test_rows_that_are_no_numbers_are_masked_and_counted(tmp_path: Path) -> None:
    stream = Stream(name="frame", row_shape=(3,), axes=("dim",), dtype="float16")
    spec = SpaceSpec(name="torn", hashed={"a": 1}, streams=(stream,), recorded={})
    values = noise(6, 3)
    values[2, 1], values[4, 0] = np.nan, np.inf
    tiny.commit_rows(create_space(tmp_path, spec), "a", np.arange(6.0), values={"frame": values})
    clips = opened(open_cache(tmp_path), "torn").clips("a")
    assert clips.valid.tolist() == [True, True, False, True, False, True]
    assert clips.num_nonfinite == 2
    assert np.isfinite(clips.features).all()
    pairs = opened(open_cache(tmp_path), "torn", config=MomentDataConfig(clip_s=2.0)).clips("a")
    assert pairs.valid.all()
    np.testing.assert_allclose(pairs.features[1], unit(values[3:4])[0], rtol=1e-6)


def test_the_recipe_gives_the_same_streams_again(cache: Cache, extracted: Cache) -> None:
    streams = opened(cache, "motion+tef", "image")
    again = StreamSet.from_recipe(open_cache(cache.path), streams.recipe)
    assert again.recipe == streams.recipe
    np.testing.assert_array_equal(again.clips("b").features, streams.clips("b").features)
    with pytest.raises(CacheMismatchError, match=r"has no space .*[^$]*it has tiny"):
        StreamSet.from_recipe(extracted, streams.recipe)
    wider = replace(streams.recipe, parts=(replace(streams.recipe.parts[0], dim=7),))
    with pytest.raises(CacheMismatchError, match="has 6 numbers a row, the run 7"):
        StreamSet.from_recipe(cache, wider)


# Windows


def video(num_clips: int) -> VideoClips:
    edges_s = np.arange(num_clips + 1) * 2.0
    return VideoClips(
        features=noise(num_clips, 5).astype(np.float32),
        edges_s=edges_s,
        valid=np.ones(num_clips, dtype=bool),
        duration_s=float(edges_s[-1]),
    )


def recipe_of(streams: StreamSet, **changes: object) -> FeatureRecipe:
    return replace(streams.recipe, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_clips", [1, 7, 8, 9, 12, 13, 100])
def test_windows_cover_the_video_and_overlap_by_half(cache: Cache, num_clips: int) -> None:
    recipe = recipe_of(opened(cache, "motion"), window_clips=8)
    windows = windows_of(num_clips, recipe)
    assert windows[0][0] == 0
    assert windows[-1][1] == num_clips
    assert all(stop - first == min(8, num_clips) for first, stop in windows)
    assert all(4 <= before[1] - after[0] < 8 for before, after in pairwise(windows))
    assert windows_of(num_clips, replace(recipe, long_videos="truncate")) == windows
    assert windows_of(num_clips, replace(recipe, long_videos="pool")) == ((0, num_clips),)
    assert windows_of(num_clips, replace(recipe, window_clips=1))[-1][1] == num_clips


def test_endpoints_are_those_of_the_window(tmp_path: Path) -> None:
    write_features(tmp_path / "cache", "x", {"a": noise(2, 2)})
    write_features(tmp_path / "cache", "y", {"a": noise(2, 3)})
    recipe = opened(open_cache(tmp_path / "cache"), "x+tef", "y+tef").recipe
    clips = video(10)
    features = window_features(clips, 4, 8, recipe)
    assert features.shape == (4, 9)
    np.testing.assert_array_equal(features[:, [0, 1, 4, 5, 6]], clips.features[4:8])
    np.testing.assert_array_equal(features[:, 2:4], [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]])
    np.testing.assert_array_equal(features[:, 7:9], features[:, 2:4])


def test_pooled_windows_are_means_of_all_clips(cache: Cache) -> None:
    clips = video(10)
    recipe = FeatureRecipe(
        parts=(replace(opened(cache, "motion").recipe.parts[0], dim=5),), window_clips=4, long_videos="pool"
    )
    window = window_of(clips, 0, 10, recipe)
    np.testing.assert_array_equal(window.edges_s, [0, 4, 10, 16, 20])
    np.testing.assert_allclose(window.features[1], clips.features[2:5].mean(axis=0), rtol=1e-5)
    clips.valid[2:4] = False
    clips.features[2:4] = 0
    window = window_of(clips, 0, 10, recipe)
    np.testing.assert_allclose(window.features[1], clips.features[4], rtol=1e-6)
    assert window.valid.all()


def test_missing_videos_are_told_by_the_stream_that_lacks_them(tmp_path: Path) -> None:
    """It was "not among the 1 of motion + image", and the user looked for the hole in both."""
    root = tmp_path / "cache"
    write_features(root, "motion", {"both": noise(9, 3), "one": noise(9, 3)})
    write_features(root, "image", {"both": noise(9, 2)})
    rows = [Annotation(qid=name, video=name, query="a", windows=((0.0, 4.0),)) for name in ("nowhere", "one", "both")]
    with pytest.raises(AnnotationError) as told:
        opened(open_cache(root), "motion", "image").match(rows)
    first, second, third = str(told.value).splitlines()
    assert first.startswith("2 of the 3 annotated videos are not among the 1 of ")
    assert second.startswith("image-")
    assert second.endswith(" lacks 1 of them, which another space holds, e.g. 'one'")
    assert third.endswith("or pass --allow-missing")


def test_a_stream_that_broke_off_makes_a_video_unusable_and_names_both_lengths(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    write_features(root, "motion", {"whole": noise(76, 3), "near": noise(76, 3), "broken": noise(76, 3)})
    write_features(root, "image", {"whole": noise(76, 2), "near": noise(73, 2), "broken": noise(10, 2)})
    for clip_s in (None, 2.0):
        streams = opened(open_cache(root), "motion", "image", config=MomentDataConfig(clip_s=clip_s))
        assert (streams.times("whole").num_clips, streams.times("near").num_clips) == (76, 73)
        both = r"'broken': image-\w+ has 10 clips \(20 s\) of it, motion-\w+ has 76 \(152 s\)"
        with pytest.raises(CacheMismatchError, match=both):
            streams.clips("broken")
        rows = [Annotation(qid=name, video=name, query="a", windows=((100.0, 110.0),)) for name in ("broken", "near")]
        with pytest.raises(AnnotationError, match=rf"^1 videos cannot be used.*{both}[^$]*--allow-missing"):
            streams.match(rows)
        with pytest.raises(AnnotationError, match="cannot be used"):
            streams.match(rows[:1], allow_missing=True)
        found, missing = streams.match(rows, allow_missing=True)
        assert (list(found), missing) == (["near"], ["broken"])
        assert [note.split(":")[0] for note in streams.notes] == [
            "1 videos are left out, their streams differ in length",
            "1 videos are a little longer in one stream than in another",
        ]
