"""Records: written, read, refused."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qle.cache.records import CommitRecord, ErrorRecord, SourceFacts, SpaceRecord, is_same_source, parse_record
from qle.cache.spaces import create_space
from qle.errors import CacheCorruptError, CacheMismatchError
from qle.types import SourceFingerprint
from tests import tiny_cache as tiny

WHERE = Path("cache/record.json")


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> CommitRecord:
    return tiny.commit_video(create_space(tmp_path_factory.mktemp("records"), tiny.tiny_spec()))


def test_a_commit_record_survives_the_disk(commit: CommitRecord) -> None:
    assert parse_record(CommitRecord, commit.to_json().encode(), WHERE) == commit
    assert (commit.num_rows, commit.num_valid, commit.first_pts_s, commit.last_pts_s) == (1100, 990, 0.25, 549.75)
    assert commit.stream("patch").stream == tiny.tiny_spec().streams[0]
    assert commit.source == tiny.tiny_source()


def test_fields_of_the_future_are_ignored_and_formats_of_the_future_are_refused(commit: CommitRecord) -> None:
    found = json.loads(commit.model_dump_json())
    assert parse_record(CommitRecord, json.dumps({**found, "mood": "fine"}).encode(), WHERE) == commit
    with pytest.raises(CacheMismatchError, match=r"format 2, this qle reads format 1; install a newer qle"):
        parse_record(CommitRecord, json.dumps({**found, "format": 2}).encode(), WHERE)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "one"}', b"null"])
def test_what_is_no_record_is_damage(text: bytes) -> None:
    with pytest.raises(CacheCorruptError, match="qle cache verify"):
        parse_record(CommitRecord, text, WHERE)


def test_a_wrong_field_is_named(commit: CommitRecord) -> None:
    found = json.loads(commit.model_dump_json()) | {"num_rows": -4}
    with pytest.raises(CacheCorruptError, match=r"CommitRecord: num_rows: "):
        parse_record(CommitRecord, json.dumps(found).encode(), WHERE)


@pytest.mark.parametrize("path", ["../../../x", "/etc/passwd", "patch/../../x", "patch//x", "..\\x", "", ".", "a\0b"])
@pytest.mark.parametrize("place", ["files", "streams"])
def test_a_record_names_no_file_outside_of_its_folder(commit: CommitRecord, place: str, path: str) -> None:
    """Merging a stranger's cache copies what its records name, to the same place beside the target."""
    found = json.loads(commit.model_dump_json())
    (found["files"][0] if place == "files" else found["streams"][0]["raw"])["path"] = path
    with pytest.raises(CacheCorruptError, match="inside the folder"):
        parse_record(CommitRecord, json.dumps(found).encode(), WHERE)


def test_an_endless_source_can_be_recorded(commit: CommitRecord) -> None:
    endless = commit.model_copy(update={"source": commit.source.model_copy(update={"duration_s": float("inf")})})
    assert parse_record(CommitRecord, endless.to_json().encode(), WHERE) == endless


def test_many_records_are_read_fast(commit: CommitRecord) -> None:
    text = commit.to_json().encode()
    started = time.process_time()
    for _ in range(2000):
        parse_record(CommitRecord, text, WHERE)
    assert (time.process_time() - started) / 2000 < 400e-6  # 100,000 in well under a minute on a busy machine


def test_names_that_are_no_text_can_be_recorded() -> None:
    facts = SourceFacts(path="/films/\udcff.mp4", fingerprint=tiny.tiny_source().fingerprint)
    error = ErrorRecord(key="\udcff.mp4", kind="open", message="no \udcff", created=datetime.now(UTC))
    assert facts.path == "/films/\\xff.mp4"
    assert ErrorRecord.from_line(error.to_json(indent=None)) == error


def test_one_source_is_recognised_by_its_time_or_its_edges() -> None:
    film = SourceFingerprint(size=10, mtime_ns=5, edge_hash="a")
    assert is_same_source(film, SourceFingerprint(size=10, mtime_ns=6, edge_hash="a"))
    assert not is_same_source(film, SourceFingerprint(size=11, mtime_ns=5, edge_hash="a"))
    assert not is_same_source(film, SourceFingerprint(size=10, mtime_ns=6, edge_hash="b"))


def test_a_space_record_gives_its_spec_back(tmp_path: Path) -> None:
    spec = tiny.tiny_spec("int8")
    space = create_space(tmp_path, spec)
    assert space.record.spec == spec
    assert parse_record(SpaceRecord, space.record.to_json().encode(), WHERE) == space.record
