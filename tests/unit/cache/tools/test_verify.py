"""verify names every file that is not as recorded, and a deep run that was killed goes on."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qle.cache.layout import CACHE_FILE, COMMIT_FILE, SPACE_FILE
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools import verify as verify_module
from qle.cache.tools.verify import LEDGER_FILE, verify
from qle.errors import CacheCorruptError, CacheMissingError
from tests.running import here
from tests.tiny_cache import commit_video, edit_record, tiny_spec


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path, tiny_spec())
    commit_video(space, "a.mp4", num_rows=600)
    commit_video(space, "b.mp4", num_rows=4, store="hdf5")
    return space


def _folder(space: SpaceFolder, key: str) -> Path:
    folder = space.folder(key)
    assert folder is not None
    return folder


def _flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("deep", [False, True])
def test_a_good_cache_has_no_findings(space: SpaceFolder, tmp_path: Path, deep: bool) -> None:
    seen: list[tuple[int, int, str]] = []
    report = verify(tmp_path, deep=deep, on_progress=lambda *at: seen.append(at))
    assert (report.findings, report.num_videos, report.num_from_before) == ([], 2, 0)
    assert seen[-1][0] == seen[-1][1] == report.size_bytes
    assert not list(space.path.rglob(LEDGER_FILE))


@pytest.mark.parametrize(
    ("key", "file"),
    [("a.mp4", "patch/c.1.0.0.0"), ("a.mp4", "zarr.json"), ("a.mp4", "pts/c.0"), ("b.mp4", "tokens.h5")],
)
def test_one_flipped_bit_is_found_and_named(space: SpaceFolder, tmp_path: Path, key: str, file: str) -> None:
    path = _folder(space, key) / file
    _flip(path, path.stat().st_size // 2, bit=6)
    assert verify(tmp_path).findings == []  # sizes alone cannot tell
    (finding,) = verify(tmp_path, deep=True).findings
    assert (finding.key, finding.file, finding.space) == (key, file, space.path.name)
    assert "content" in finding.problem


def test_a_file_that_cannot_be_read_is_a_finding(
    space: SpaceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("qle.cache.integrity.hash_file", fail)
    findings = verify(tmp_path, deep=True).findings
    assert {finding.key for finding in findings} == {"a.mp4", "b.mp4"}
    assert all("Input/output error" in finding.problem for finding in findings)


def test_sizes_and_records_are_checked_without_deep(space: SpaceFolder, tmp_path: Path) -> None:
    (_folder(space, "a.mp4") / "patch" / "c.0.0.0.0").unlink()
    os.truncate(_folder(space, "a.mp4") / "frame" / "c.0.0", 5)
    record = _folder(space, "b.mp4") / COMMIT_FILE
    record.write_text(record.read_text()[:50])
    found = {(finding.key, finding.file): finding.problem for finding in verify(tmp_path).findings}
    assert set(found) == {("a.mp4", "patch/c.0.0.0.0"), ("a.mp4", "frame/c.0.0"), ("b.mp4", COMMIT_FILE)}
    assert "got 5 bytes" in found["a.mp4", "frame/c.0.0"]


def test_a_record_in_the_wrong_place_is_found(space: SpaceFolder, tmp_path: Path) -> None:
    record = _folder(space, "a.mp4") / COMMIT_FILE
    edit_record(record, key="c.mp4")
    (finding,) = verify(tmp_path).findings
    assert "not the one of video 'c.mp4'" in finding.problem


def test_some_videos_of_some_spaces(space: SpaceFolder, tmp_path: Path) -> None:
    other = create_space(tmp_path, tiny_spec("float32"))
    commit_video(other, "a.mp4", num_rows=4)
    assert verify(tmp_path).num_videos == 3
    assert verify(tmp_path, spaces=["tiny-float32"]).num_videos == 1
    assert verify(tmp_path, keys=["a.mp4"]).num_videos == 2
    with pytest.raises(CacheMissingError, match="tiny-float16"):
        verify(tmp_path, spaces=["nothing"])


def test_large_videos_are_hashed_file_by_file(
    space: SpaceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "SPLIT_BYTES", 1000)
    _flip(_folder(space, "a.mp4") / "patch" / "c.1.0.0.0", 7)

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, deep=True, on_progress=stop)
    (ledger,) = space.path.rglob(LEDGER_FILE)
    assert len(ledger.read_text().splitlines()) == 1
    report = verify(tmp_path, deep=True)
    assert [finding.file for finding in report.findings] == ["patch/c.1.0.0.0"]
    assert report.num_videos == 2


def _interrupt(space: SpaceFolder, num_videos: int = 5) -> None:
    """A deep run that is interrupted when it has found so many videos intact."""
    stopped = num_videos

    def stop(done: int, total: int, what: str) -> None:
        nonlocal stopped
        stopped -= 1
        if not stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(space.path.parent, deep=True, on_progress=stop)


def _fill(space: SpaceFolder) -> None:
    """With more videos than may be under way at once."""
    for number in range(50):
        commit_video(space, f"{number}.mp4", num_rows=1)


@pytest.mark.slow
def test_an_interrupted_deep_run_goes_on(space: SpaceFolder, tmp_path: Path) -> None:
    _fill(space)
    _interrupt(space)
    assert verify(tmp_path, deep=True).num_from_before == 5
    assert verify(tmp_path, deep=True).num_from_before == 0  # that one had come to its end


def test_a_broken_description_is_named_and_the_healthy_spaces_are_checked(space: SpaceFolder, tmp_path: Path) -> None:
    """Every command said "run: qle cache verify", and verify said the same."""
    broken = create_space(tmp_path, tiny_spec("float32"))
    (broken.path / SPACE_FILE).write_text("{")
    (_folder(space, "b.mp4") / COMMIT_FILE).write_text("{")
    report = verify(tmp_path)
    found = {(finding.space, finding.file): finding.problem for finding in report.findings}
    assert set(found) == {(broken.path.name, SPACE_FILE), (space.path.name, COMMIT_FILE)}
    assert "restore the file from a copy" in found[broken.path.name, SPACE_FILE]
    assert report.num_videos == 2
    assert not any("cache verify" in problem for problem in found.values())
    with pytest.raises(CacheCorruptError, match="move the folder of the space away"):
        verify(tmp_path, spaces=[broken.path.name])
    (tmp_path / CACHE_FILE).write_text("")
    report = verify(tmp_path)
    assert (len(report.findings), report.findings[0].file, report.num_videos) == (3, CACHE_FILE, 2)
    with pytest.raises(CacheMissingError):
        verify(tmp_path / "nothing")


@pytest.mark.slow
def test_a_resumed_run_says_what_it_did_not_read_again_and_reads_it_when_asked(
    space: SpaceFolder, tmp_path: Path
) -> None:
    """A bit that flipped after the interrupted run had read it stayed unsaid for a day."""
    _fill(space)
    before = datetime.now(UTC)
    _interrupt(space)
    (key, *_), times = zip(*verify(tmp_path, deep=True).from_before.items(), strict=True)
    assert all(before <= time <= datetime.now(UTC) for time in times)
    _interrupt(space)
    damaged = next((_folder(space, key)).glob("**/c.0.0"), _folder(space, key) / "tokens.h5")
    _flip(damaged, 0)
    ledger = space.path / "runs" / LEDGER_FILE
    notes = ledger.read_bytes()
    done = here("cache", "verify", tmp_path, "--deep")
    assert done.returncode == 0
    assert re.search(rf"not read again, since .* \(from {before:%Y-%m-%d}.*\): .*; --again reads them too", done.stdout)
    ledger.write_bytes(notes)
    done = here("cache", "verify", tmp_path, "--deep", "--again")
    assert done.returncode == 3
    assert key in done.stdout
    assert "not read again" not in done.stdout
    assert here("cache", "verify", tmp_path, "--again").returncode == 2


@pytest.mark.slow
def test_notes_from_the_future_are_not_believed(space: SpaceFolder, tmp_path: Path) -> None:
    """As those of a stranger's cache might be, for ever."""
    _fill(space)
    _interrupt(space)
    ledger = space.path / "runs" / LEDGER_FILE
    lines = [json.loads(line) | {"at_s": 1e11} for line in ledger.read_text().splitlines()]
    ledger.write_text("\n".join(map(json.dumps, lines)))
    assert verify(tmp_path, deep=True).from_before == {}
