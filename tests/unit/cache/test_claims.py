"""Claims with real owners: alive, killed, frozen."""

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest

from qle.cache.claims import Claims, release_abandoned
from qle.cache.spaces import SpaceFolder, create_space
from qle.errors import CacheError
from tests import tiny_cache as tiny

LEASE_S = 1.0


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    return create_space(tmp_path / "cache", tiny.tiny_spec())


@pytest.fixture
def owner(space: SpaceFolder):
    """A process that holds the claim of the video until it is killed."""
    held, gate = tiny.PROCESSES.Event(), tiny.PROCESSES.Event()
    process = tiny.PROCESSES.Process(target=hold, args=(space.path.parent, held, gate), daemon=True)
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join(60)


def hold(root: Path, held, gate) -> None:
    claims = Claims(create_space(root, tiny.tiny_spec()), LEASE_S)
    assert claims.try_acquire(tiny.KEY)
    held.set()
    gate.wait()


def watch(claims: Claims, limit_s: float) -> float | None:
    """Seconds until the claim was had by looking again and again; None if not within the limit."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < limit_s:
        if claims.try_acquire(tiny.KEY):
            return waited
        time.sleep(0.02)  # the pace of looking, not a wait for anything
    return None


def test_one_claim_one_owner(space: SpaceFolder) -> None:
    with Claims(space) as mine, Claims(space) as theirs:
        assert mine.try_acquire(tiny.KEY)
        assert mine.try_acquire(tiny.KEY)
        assert not theirs.try_acquire(tiny.KEY)
        assert theirs.try_acquire("another.mp4")
        mine.release(tiny.KEY)
        assert theirs.try_acquire(tiny.KEY)
    assert list((space.path / "claims").iterdir()) == []


def test_a_claim_is_given_back_by_another_thread(space: SpaceFolder) -> None:
    claims = Claims(space)
    claims.try_acquire(tiny.KEY)
    thread = Thread(target=claims.release, args=(tiny.KEY,))
    thread.start()
    thread.join()
    with Claims(space) as other:
        assert other.try_acquire(tiny.KEY)


@pytest.mark.slow
def test_a_living_owner_keeps_its_claim_beyond_the_lease(space: SpaceFolder, owner) -> None:
    with Claims(space, LEASE_S) as claims:
        assert watch(claims, 1.6 * LEASE_S) is None


@pytest.mark.slow
def test_a_killed_owner_loses_its_claim_at_once(space: SpaceFolder, owner) -> None:
    owner.kill()
    owner.join(60)
    with Claims(space, LEASE_S) as claims:
        waited = watch(claims, 10)
        assert waited is not None
        assert waited < LEASE_S


@pytest.mark.slow
def test_a_frozen_owner_loses_its_claim_when_the_lease_is_over(space: SpaceFolder, owner) -> None:
    os.kill(owner.pid, signal.SIGSTOP)
    with Claims(space, LEASE_S) as claims:
        waited = watch(claims, 30)
        assert waited is not None
        assert waited > 0.9 * LEASE_S


@pytest.mark.slow
def test_workers_must_agree_on_the_lease(space: SpaceFolder, owner) -> None:
    with Claims(space, 2 * LEASE_S) as claims, pytest.raises(CacheError, match="must agree on lease_duration"):
        claims.try_acquire(tiny.KEY)


def test_hostile_keys_stay_inside(space: SpaceFolder) -> None:
    with Claims(space) as claims:
        for key in ("../../x", "/etc/passwd", "a\x00b", "x" * 5000, "\udcff"):
            assert claims.try_acquire(key)
        assert len(list((space.path / "claims").iterdir())) == 5


def test_a_claim_that_was_never_signed_is_free_soon(space: SpaceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner was killed between making the file and writing into it. Such a claim kept a video, or a space, for ever."""
    monkeypatch.setattr("qle.cache.claims.UNSIGNED_S", 0.2)
    with Claims(space) as claims:
        assert claims.try_acquire(tiny.KEY)
        (path,) = (space.path / "claims").iterdir()
    path.touch()
    with Claims(space) as claims:
        waited_s = watch(claims, 10.0)
        assert waited_s is not None
        assert waited_s >= 0.2


def test_half_a_takeover_is_cleared_away(space: SpaceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process leaves that is killed while it takes over the claim of a dead one."""
    monkeypatch.setattr("qle.cache.claims.UNSIGNED_S", -1.0)
    left = space.path / "claims" / "0123.lease.break.4711.89ab"
    left.touch()
    release_abandoned(space.path)
    assert not left.exists()
