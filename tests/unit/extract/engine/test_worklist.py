"""Workers of one list keep apart by claims, and nobody waits for ever for a claim that is dead."""

from datetime import UTC, datetime

import numpy as np
import pytest

from qle.backbones import BackboneRequest, build_backbone
from qle.cache.records import ErrorRecord, SourceFacts
from qle.cache.spaces import ErrorLog
from qle.cache.writer import VideoWriter
from qle.extract.engine.worklist import Pending, WorkList
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.target import make_target
from qle.types import RowPlan, SourceFingerprint, VideoSource


@pytest.fixture(scope="module")
def backbone():
    return build_backbone(BackboneRequest(name="tiny", device="cpu"))


@pytest.fixture
def target(backbone, tmp_path):
    return make_target(backbone, Sampling(mode="native"), TokenOptions(tokens="frame"), tmp_path / "cache")


def pending(target, *keys):
    return [Pending(VideoSource(key=key, path=target.folder.path / key), (target,), False) for key in keys]


def commit(target, key):
    rows = RowPlan(frame_index=np.zeros(1, np.int64), pts_s=np.zeros(1), is_valid=np.ones(1, bool))
    facts = SourceFacts(path=key, fingerprint=SourceFingerprint(size=1, mtime_ns=1, edge_hash="00"))
    writer = VideoWriter.open(target.folder, key, rows=rows, source=facts, durability="none")
    writer.write("frame", np.arange(1), np.zeros((1, 64), np.float16))
    writer.commit()


def test_two_lists_hand_out_different_videos(target):
    first, second = (WorkList(pending(target, "a", "b"), [target]) for _ in range(2))
    assert first.take().source.key == "a"
    assert second.take().source.key == "b"
    assert second.take() is None
    assert (second.num_contested, second.is_finished) == (1, False)
    first.close()
    second.close()


def test_what_another_worker_committed_is_not_done_again(target):
    first, second = (WorkList(pending(target, "a"), [target]) for _ in range(2))
    assert first.take().source.key == "a"
    assert second.take() is None
    commit(target, "a")
    first.release(target, "a")
    second._next_look_s = 0
    assert second.take() is None
    assert second.is_finished
    first.close()
    second.close()


def fail(target, key):
    target.folder.errors.append(
        ErrorRecord(key=key, kind="decode", message="bad", attempt=1, created=datetime.now(UTC))
    )


def test_what_another_worker_failed_at_meanwhile_is_not_tried_again(target):
    first, second = (WorkList(pending(target, "a", "b", "c"), [target]) for _ in range(2))
    for key in "ab":
        assert first.take().source.key == key
        fail(target, key)
        first.release(target, key)
    assert second.take().source.key == "c"
    first.close()
    second.close()


def test_the_log_of_failures_is_not_read_again_for_every_video(target, monkeypatch):
    fail(target, "x")
    work = WorkList(pending(target, *map(str, range(20))), [target])
    reads = []
    latest = ErrorLog.latest
    monkeypatch.setattr(ErrorLog, "latest", lambda log: reads.append(log) or latest(log))
    for _ in range(20):
        work.take()
    assert len(reads) == 1
    work.close()


def test_a_claim_that_was_given_back_without_a_commit_is_taken_up(target):
    first, second = (WorkList(pending(target, "a"), [target]) for _ in range(2))
    assert first.take().source.key == "a"
    assert second.take() is None
    first.release(target, "a")
    second._next_look_s = 0
    assert second.take().source.key == "a"
    first.close()
    second.close()


def test_a_claim_with_a_live_owner_ends_the_wait(target, monkeypatch):
    first, second = (WorkList(pending(target, "a"), [target]) for _ in range(2))
    assert first.take().source.key == "a"
    monkeypatch.setattr("qle.extract.engine.worklist.PATIENCE_S", -1.0)
    assert second.take() is None
    assert second.is_finished
    assert second.num_contested == 1
    first.close()
    second.close()
