"""Every state of a video, with its reason, on real files."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qle.cache.claims import LEASE_S, Claims
from qle.cache.index import load_index
from qle.cache.layout import COMMIT_FILE
from qle.cache.records import ErrorRecord, SourceFacts
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.states import VideoState, count_states, states
from qle.cache.writer import VideoWriter
from qle.extract.device import needs_work
from qle.types import VideoSource
from tests.tiny_cache import commit_video, fill, tiny_plan, tiny_spec, tiny_values

KEY = "a.mp4"


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    return create_space(tmp_path / "cache", tiny_spec())


def _source(tmp_path: Path, key: str = KEY) -> VideoSource:
    path = tmp_path / key.replace("/", "_")[:100]
    if not path.exists():
        path.write_bytes(b"film of " + key.encode())
    return VideoSource(key=key, path=path)


def _commit(space: SpaceFolder, source: VideoSource) -> Path:
    facts = SourceFacts(path=str(source.path), fingerprint=fingerprint(source.path))
    with VideoWriter.open(space, source.key, tiny_plan(4), facts, durability="none") as writer:
        fill(writer, tiny_values(4))
        writer.commit()
    folder = space.folder(source.key)
    assert folder is not None
    return folder


def _state(space: SpaceFolder, source: VideoSource) -> VideoState:
    (state,) = states(space, [source])
    assert state.key == source.key
    return state


def _log(space: SpaceFolder, key: str, attempt: int) -> None:
    now = datetime.now(UTC)
    space.errors.append(
        ErrorRecord(key=key, kind="truncated", message="ends early\nat 3 s", attempt=attempt, created=now)
    )


def test_pending_then_done(space: SpaceFolder, tmp_path: Path) -> None:
    source = _source(tmp_path)
    assert _state(space, source).state == "pending"
    _commit(space, source)
    assert _state(space, source) == VideoState(key=KEY, state="done")


def test_a_source_that_is_gone_leaves_its_tokens_done(space: SpaceFolder, tmp_path: Path) -> None:
    source = _source(tmp_path)
    _commit(space, source)
    source.path.unlink()
    assert _state(space, source).state == "done"


def test_a_touched_source_is_the_same_and_a_changed_one_is_stale(space: SpaceFolder, tmp_path: Path) -> None:
    source = _source(tmp_path)
    _commit(space, source)
    os.utime(source.path, (1, 1))
    assert _state(space, source).state == "done"
    source.path.write_bytes(source.path.read_bytes().replace(b"film", b"FILM"))
    os.utime(source.path, (2, 2))
    assert (_state(space, source).state, "other content" in _state(space, source).reason) == ("stale", True)
    source.path.write_bytes(b"longer than it was before")
    assert "25 bytes, was 13" in _state(space, source).reason


@pytest.mark.parametrize("damage", ["missing", "short", "long", "torn record", "no record"])
def test_damaged_says_which_file(space: SpaceFolder, tmp_path: Path, damage: str) -> None:
    source = _source(tmp_path)
    folder = _commit(space, source)
    shard, record = folder / "patch" / "c.0.0.0.0", folder / COMMIT_FILE
    if damage == "missing":
        shard.unlink()
    elif damage == "short":
        os.truncate(shard, 10)
    elif damage == "long":
        os.truncate(shard, 10**6)
    elif damage == "torn record":
        record.write_bytes(record.read_bytes()[:99])
    else:
        record.unlink()
    state = _state(space, source)
    assert state.state == "damaged"
    assert ("_COMMIT.json" if "record" in damage else "patch/c.0.0.0.0") in state.reason


def test_damaged_record_of_a_key_too_long_for_a_name(space: SpaceFolder, tmp_path: Path) -> None:
    source = _source(tmp_path, "deep/" * 60 + "a.mp4")
    folder = _commit(space, source)
    (folder / COMMIT_FILE).write_text("{")
    assert _state(space, source).state == "damaged"


def test_a_record_that_is_gone_is_damage_though_the_index_has_it(space: SpaceFolder, tmp_path: Path) -> None:
    """With the index it was done, without it was damaged, and readers said that it was missing."""
    commit_video(space, "a.mp4", num_rows=4)
    folder = space.folder("a.mp4")
    assert folder is not None
    os.utime(folder.parent, (1, 1))  # long ago, so that the index is believed
    load_index(space)
    (folder / COMMIT_FILE).unlink()
    (state,) = states(space, [VideoSource(key="a.mp4", path=tmp_path / "gone")])
    assert (state.state, state.reason) == ("damaged", "it has no _COMMIT.json")


def test_failed_counts_attempts_and_a_commit_ends_it(space: SpaceFolder, tmp_path: Path) -> None:
    source = _source(tmp_path)
    _log(space, KEY, 1)
    _log(space, KEY, 2)
    state = _state(space, source)
    assert (state.state, state.reason, state.num_attempts) == ("failed", "truncated: ends early", 2)
    _commit(space, source)
    assert _state(space, source).state == "done"


def test_a_video_that_could_not_be_read_is_tried_again(space: SpaceFolder, tmp_path: Path) -> None:
    """A disk that failed once kept it out of every later run; what is wrong with the file itself still does."""
    source = _source(tmp_path)
    for kind, is_passing in (("truncated", False), ("io", True)):
        error = ErrorRecord(key=source.key, kind=kind, message="a reason", created=datetime.now(UTC))
        space.errors.append(error)
        state = _state(space, source)
        assert (state.state, state.is_passing) == ("failed", is_passing)
        assert needs_work(state, retry_failed=False) is is_passing


def test_claimed_while_the_claim_is_fresh(space: SpaceFolder, tmp_path: Path) -> None:
    source = _source(tmp_path)
    _log(space, KEY, 1)
    with Claims(space) as claims:
        assert claims.try_acquire(KEY)
        assert _state(space, source).state == "claimed"
        (lease,) = (space.path / "claims").glob("*.lease")
        long_ago = time.time() - 3 * LEASE_S
        os.utime(lease, (long_ago, long_ago))
        assert _state(space, source).state == "failed"
        os.utime(lease)


def test_order_is_that_of_the_sources(space: SpaceFolder, tmp_path: Path) -> None:
    sources = [_source(tmp_path, f"{n}.mp4") for n in (3, 1, 2)]
    _commit(space, sources[1])
    found = states(space, sources)
    assert [state.state for state in found] == ["pending", "done", "pending"]
    assert [state.key for state in found] == ["3.mp4", "1.mp4", "2.mp4"]
    assert count_states(found) == {"done": 1, "stale": 0, "damaged": 0, "failed": 0, "claimed": 0, "pending": 2}
