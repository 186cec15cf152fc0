"""A few frames for a whole video: which rows, read from any stream, whatever the video is like."""

from pathlib import Path

import numpy as np
import pytest

from qle.cache.reader import Space, open_cache
from qle.cache.spaces import create_space
from qle.data.annotations import Annotation
from qle.data.rows import RowChoice
from qle.data.streams.recipe import StreamChoice
from qle.errors import AnnotationError, CacheCorruptError, CacheMismatchError, CacheMissingError, ConfigError
from qle.segments.spans import row_edges
from qle.tasks.retrieval.batches.frames import FrameSource, middle_rows
from tests.planted_retrieval import retrieval_spec
from tests.tiny_cache import commit_rows, tiny_spec, tiny_values


def choice_of(times_s: list[float], duration_s: float, invalid: tuple[int, ...] = ()) -> RowChoice:
    times = np.array(times_s)
    valid = np.ones(len(times), bool)
    valid[list(invalid)] = False
    return RowChoice(
        index=np.arange(len(times)) + 100,
        times_s=times,
        edges_s=row_edges(times, 0.0, duration_s),
        valid=valid,
        duration_s=duration_s,
    )


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    root = tmp_path_factory.mktemp("cache")
    folder = create_space(root, tiny_spec())
    commit_rows(folder, "a/even.mp4", np.arange(40) / 2)
    commit_rows(folder, "a/one.mp4", np.array([0.0]))
    values = tiny_values(6)
    values["frame"][2] = np.nan
    commit_rows(folder, "a/hurt.mp4", np.arange(6), values=values)
    broken = tiny_values(3)
    broken["frame"][:] = np.inf
    commit_rows(folder, "b/broken.mp4", np.arange(3), values=broken)
    return open_cache(root).space()


def test_each_equal_part_of_time_gives_the_row_of_its_middle() -> None:
    even = choice_of([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5], 8.0)
    assert (middle_rows(even, 4) - 100).tolist() == [0, 2, 4, 6]  # of two as near, the earlier one, as published
    assert (middle_rows(even, 8) - 100).tolist() == list(range(8))
    assert (middle_rows(even, 3) - 100).tolist() == [1, 3, 6]
    begins = choice_of([0.0, 1.0, 2.0, 3.0], 4.0)  # stamped at the beginning of what they show
    assert (middle_rows(begins, 4) - 100).tolist() == [0, 1, 2, 3]


def test_time_decides_and_not_the_number_of_the_row() -> None:
    """Half of the rows lie in the first second of ten, where a camera was slow or a space holds every frame."""
    uneven = choice_of([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 4.0, 6.0, 8.0, 10.0], 10.0)
    assert (middle_rows(uneven, 5) - 100).tolist() == [5, 6, 6, 7, 8]


def test_few_rows_stand_several_times() -> None:
    assert (middle_rows(choice_of([0.0, 5.0], 10.0), 4) - 100).tolist() == [0, 1, 1, 1]
    assert (middle_rows(choice_of([3.0], 10.0), 3) - 100).tolist() == [0, 0, 0]


def test_rows_that_were_off_screen_are_passed_over() -> None:
    times = [0.5, 1.5, 2.5, 3.5]
    assert (middle_rows(choice_of(times, 4.0, invalid=(1, 2)), 4) - 100).tolist() == [0, 0, 3, 3]
    assert (middle_rows(choice_of(times, 4.0, invalid=(0, 1, 2, 3)), 4) - 100).tolist() == [0, 1, 2, 3]


def test_frames_are_the_stored_rows(space: Space) -> None:
    source = FrameSource(space, "frame", 4)
    found = source.frames(["a/one.mp4", "a/even.mp4"])
    assert found.shape == (2, 4, 8)
    assert found.dtype == np.float32
    assert source.dtype == np.float16
    stored = np.asarray(space.video("a/even.mp4").frame).astype(np.float32)
    np.testing.assert_array_equal(found[1], stored[source.rows("a/even.mp4")])
    assert (np.diff(source.rows("a/even.mp4")) > 0).all()
    assert np.ptp(found[0], axis=0).max() == 0


def test_maps_are_averaged(space: Space) -> None:
    source = FrameSource(space, "patch", 3)
    rows = np.asarray(space.video("a/even.mp4").patch)[source.rows("a/even.mp4")].astype(np.float32)
    np.testing.assert_allclose(source.frames(["a/even.mp4"])[0], rows.mean((1, 2)), rtol=1e-6)
    assert source.dtype == np.float32


def test_a_row_of_no_numbers_is_replaced_and_told(space: Space) -> None:
    source = FrameSource(space, "frame", 6)
    found = source.frames(["a/hurt.mp4"])[0]
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[2], found[1])
    assert source.num_nonfinite_rows == 1
    source.frames(["a/hurt.mp4"])
    assert source.num_nonfinite_rows == 1
    with pytest.raises(CacheCorruptError, match=r"b/broken.mp4.*none of its 3 sampled rows"):
        source.frames(["b/broken.mp4"])


def test_what_does_not_fit_into_memory_is_read_again(space: Space) -> None:
    small, large = FrameSource(space, "frame", 4, keep_bytes=0), FrameSource(space, "frame", 4)
    for source in (small, large):
        first, again = (source.frames(["a/even.mp4", "a/one.mp4"]) for _ in range(2))
        np.testing.assert_array_equal(first, again)
    assert (len(small._kept), len(large._kept)) == (0, 2)


def test_a_stream_is_found_by_name_and_from_a_record(space: Space, tmp_path: Path) -> None:
    cache = open_cache(space.path.parent)
    source = FrameSource.open(cache, StreamChoice(space=None), 4)
    assert (source.stream, source.dim, source.where) == ("frame", 8, f"{space.path.name}:frame")
    patch = FrameSource.open(cache, StreamChoice(space="tiny", stream="patch"), 2)
    again = FrameSource.from_recipe(cache, patch.recipe)
    assert (again.stream, again.num_frames, again.dim) == ("patch", 2, 8)
    with pytest.raises(ConfigError, match="endpoints belong to clips"):
        FrameSource.open(cache, StreamChoice(space=None, has_endpoints=True), 4)
    with pytest.raises(CacheMissingError, match="no stream 'clip'"):
        FrameSource.open(cache, StreamChoice(space=None, stream="clip"), 4)
    create_space(tmp_path, retrieval_spec())
    with pytest.raises(CacheMismatchError, match="has no space"):
        FrameSource.from_recipe(open_cache(tmp_path), patch.recipe)


def test_windows_do_not_matter_but_videos_do(space: Space) -> None:
    source = FrameSource(space, "frame", 4)
    far = Annotation(qid="1", video="even", query="a", windows=((500.0, 600.0),))
    by_key, missing = source.match([far])
    assert (list(by_key), missing) == (["a/even.mp4"], [])
    gone = Annotation(qid="2", video="gone", query="a", windows=())
    with pytest.raises(AnnotationError, match="'gone'"):
        source.match([far, gone])
    assert source.match([far, gone], allow_missing=True)[1] == ["gone"]
