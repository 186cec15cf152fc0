"""Spaces of runs are found by what their numbers mean, and what is missing is named."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from qle.cache.reader import Space, open_cache
from qle.errors import CacheCorruptError, CacheMismatchError, CacheMissingError
from qle.runs.record import RunRecord, SpaceUse
from qle.runs.spaces import find_space, space_of, spaces_of, streams_of
from tests.planted_moments import planted_cache, planted_features, planted_streams


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two spaces of other features with the same videos, the third damaged."""
    for name in ("first", "second", "third"):
        planted_cache(tmp_path, {"a": planted_features(4, [])}, name)
    (open_cache(tmp_path / "cache").space("third").path / "space.json").write_text("{")
    return tmp_path / "cache"


def _use(space: Space, **changes: object) -> SpaceUse:
    known = {"name": space.record.name, "hash": space.record.hash, "hashed": space.record.hashed}
    return SpaceUse(**(known | {"streams": {"frame": (8,)}, "rate_fps": None} | changes))


def _record(*uses: SpaceUse, **changes: object) -> RunRecord:
    return RunRecord(
        head="qle", head_config={}, text={}, text_dim=1, sentence_dim=1, space=uses[0], more_spaces=uses[1:],
        priors=None, settings={}, selection={}, versions={}, created=datetime.now(UTC), **changes,
    )  # fmt: skip


def test_a_space_is_found_whatever_it_is_called_and_what_else_is_there(cache: Path) -> None:
    first, second = (open_cache(cache).space(name) for name in ("first", "second"))
    first.path.rename(cache / "renamed")
    assert space_of(cache, _record(_use(first))).record.hash == first.record.hash
    assert space_of(cache, _record(_use(second)), "sec").path == second.path
    found = spaces_of(cache, _record(_use(second), _use(first)))
    assert [space.record.hash for space in found] == [second.record.hash, first.record.hash]
    assert find_space(cache / "nothing", _use(first)) is None


def test_what_is_missing_is_named(cache: Path) -> None:
    first = open_cache(cache).space("first")
    other = _use(first, hash="0" * 64, name="elsewhere")
    with pytest.raises(
        CacheMismatchError, match=r"no space elsewhere-000000000000, which the run was trained on\nit has first-"
    ):
        space_of(cache, _record(other))
    with pytest.raises(CacheMismatchError, match=r"no space elsewhere-"):
        spaces_of(cache, _record(_use(first), other))
    with pytest.raises(CacheMismatchError, match="this is another"):
        space_of(cache, _record(other), "second")
    with pytest.raises(CacheMissingError, match="does not exist"):
        spaces_of(cache / "nothing", _record(_use(first), other))


def test_streams_of_a_run_over_spaces_of_any_order(cache: Path) -> None:
    streams = planted_streams(cache, "first", "second+tef")
    record = _record(*map(_use, streams.spaces), recipe=streams.recipe)
    again = streams_of(record, tuple(reversed(spaces_of(cache, record))))
    assert (again.clips("a").features == streams.clips("a").features).all()


def test_a_damaged_record_is_not_called_missing(cache: Path) -> None:
    (path,) = cache.glob("third-*")
    use = _use(open_cache(cache).space("first"), name="third", hash=path.name.rpartition("-")[2] + "0" * 52)
    with pytest.raises(CacheCorruptError, match=r"space.json is no JSON(?s:.*)restore the file from a copy"):
        space_of(cache, _record(use))
