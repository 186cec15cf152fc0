"""Making spaces, alone and in a crowd."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qle.cache.layout import CACHE_FILE, SPACE_FILE
from qle.cache.records import ErrorRecord
from qle.cache.spaces import create_space, open_space
from qle.errors import CacheCorruptError, CacheMismatchError, CacheMissingError, ConfigError
from qle.types import Stream
from tests import tiny_cache as tiny


def test_a_space_is_made_once(tmp_path: Path) -> None:
    first = create_space(tmp_path / "deep" / "cache", tiny.tiny_spec())
    files = {path: path.read_bytes() for path in first.path.parent.rglob("*.json")}
    later = dataclasses.replace(tiny.tiny_spec(), recorded={"device": "cuda"})
    assert create_space(tmp_path / "deep" / "cache", later) == first
    assert {path: path.read_bytes() for path in first.path.parent.rglob("*.json")} == files
    assert first.record.recorded == {"device": "cpu"}
    assert create_space(first.path.parent, tiny.tiny_spec("float32")).path != first.path


@pytest.mark.slow
def test_many_processes_make_one_cache(tmp_path: Path) -> None:
    gate, results = tiny.PROCESSES.Barrier(4), tiny.PROCESSES.Queue()
    crowd = [tiny.PROCESSES.Process(target=make, args=(tmp_path / "cache", gate, results)) for _ in range(4)]
    for process in crowd:
        process.start()
    seen = {results.get(timeout=600) for _ in crowd}
    for process in crowd:
        process.join(60)
    assert len(seen) == 1


def make(root: Path, gate, results) -> None:
    gate.wait(60)
    space = create_space(root, tiny.tiny_spec())
    results.put((json.loads((root / CACHE_FILE).read_text())["uuid"], space.record.created.isoformat()))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CacheMismatchError, match=r"not empty \(it holds 'thesis.tex'\)"):
        create_space(tmp_path, tiny.tiny_spec())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_edited_description_is_noticed(tmp_path: Path) -> None:
    space = create_space(tmp_path, tiny.tiny_spec())
    path = space.path / SPACE_FILE
    tiny.edit_record(path, hashed={"dtype": "float32"})
    with pytest.raises(CacheCorruptError, match="does not fit its hash"):
        open_space(space.path)


def test_streams_of_a_strangers_space_stay_inside(tmp_path: Path) -> None:
    """The names of streams are no part of the hash, and tools make folders of them."""
    path = create_space(tmp_path, tiny.tiny_spec()).path / SPACE_FILE
    streams = json.loads(path.read_text())["streams"]
    tiny.edit_record(path, streams=[streams[0], {**streams[1], "name": "../../frame"}])
    with pytest.raises(CacheCorruptError, match="no name of a stream"):
        open_space(path.parent)


def test_streams_must_make_sense(tmp_path: Path) -> None:
    patch = Stream(name="patch", row_shape=(1, 1, 2), axes=("rows", "cols", "dim"), dtype="int8")
    for streams in ([patch], [dataclasses.replace(patch, name="../x", dtype="float16")], [patch, patch]):
        spec = dataclasses.replace(tiny.tiny_spec(), streams=tuple(streams))
        with pytest.raises(ConfigError, match="stream"):
            create_space(tmp_path / "cache", spec)
    assert not (tmp_path / "cache").exists()


def test_what_is_no_space_is_said(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match="is no space"):
        open_space(tmp_path)


def test_errors_are_kept_in_order_even_after_a_torn_line(tmp_path: Path) -> None:
    log = create_space(tmp_path, tiny.tiny_spec()).errors
    assert log.read() == []
    first, second = (
        ErrorRecord(key=key, kind="decode", message="broken\nfilm", attempt=1, created=datetime.now(UTC))
        for key in ("a.mp4", "b.mp4")
    )
    log.append(first)
    with open(log.path, "a") as file:
        file.write('{"format": 1, "key": "torn')
    log.append(second)
    log.append(second)
    assert log.read() == [first, second, second]
    assert log.attempts() == {"a.mp4": 1, "b.mp4": 2}
    assert log.latest() == {"a.mp4": first, "b.mp4": second}


@pytest.mark.parametrize("key", ["a\u2028b.mp4", "a\x85b.mp4", "a\nb\r.mp4", "\u00fc.mp4"])
def test_an_error_of_a_video_with_line_breaks_in_its_name_is_one_line(tmp_path: Path, key: str) -> None:
    """Python takes U+2028 and U+0085 for line breaks, JSON leaves them as they are: the error was lost."""
    log = create_space(tmp_path, tiny.tiny_spec()).errors
    log.append(ErrorRecord(key=key, kind="decode", message="broken", attempt=1, created=datetime.now(UTC)))
    assert log.attempts() == {key: 1}
