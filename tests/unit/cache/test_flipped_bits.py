"""Records under every single-bit flip: each one is named, or changes nothing that the record says."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from qle.cache import packs
from qle.cache.files.extents import extents
from qle.cache.layout import CACHE_FILE, COMMIT_FILE, SPACE_FILE
from qle.cache.plausible import commit_contradiction
from qle.cache.reader import Space
from qle.cache.records import CacheRecord, CommitRecord, Record, SpaceRecord, parse_record
from qle.cache.spaces import SpaceFolder, create_space, open_space
from qle.cache.tools.pack import pack
from qle.cache.tools.verify import verify
from qle.errors import CacheCorruptError, CacheError, QleError
from qle.types import StoreKind
from tests import tiny_cache as tiny

WHERE = Path("cache/record.json")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SpaceFolder:
    """A space with a video in each format and a pack of two."""
    root = tmp_path_factory.mktemp("flips")
    space = create_space(root, tiny.tiny_spec("int8"))
    for key in ("a.mp4", "b.mp4"):
        tiny.commit_video(space, key, num_rows=5)
    pack(root)
    tiny.commit_video(space, "zarr.mp4", num_rows=5)
    tiny.commit_video(space, "hdf5.mp4", num_rows=5, store="hdf5")
    return space


def _texts(space: SpaceFolder) -> dict[str, tuple[type[Record], bytes]]:
    (folder,) = packs.pack_folders(space.path)
    member = packs.open_pack(folder).members["record"][0].as_py()
    videos = {key: space.folder(key) for key in ("zarr.mp4", "hdf5.mp4")}
    return {
        "cache": (CacheRecord, (space.path.parent / CACHE_FILE).read_bytes()),
        "space": (SpaceRecord, (space.path / SPACE_FILE).read_bytes()),
        "pack": (packs.PackRecord, (folder / packs.PACK_FILE).read_bytes()),
        "packed video": (CommitRecord, member.encode()),
        **{key: (CommitRecord, (path / COMMIT_FILE).read_bytes()) for key, path in videos.items() if path},
    }


def _unnoticed(text: bytes, read: Callable[[bytes], object], places: Sequence[int]) -> list[tuple[int, int, object]]:
    """The flips at these places that raise nothing, and what is read then."""
    found = []
    flipped = bytearray(text)
    for place in places:
        for bit in range(8):
            flipped[place] ^= 1 << bit
            with suppress(QleError):
                found.append((place, bit, read(bytes(flipped))))
            flipped[place] ^= 1 << bit
    return found


@pytest.mark.parametrize("kind", ["cache", "space", "pack", "packed video", "zarr.mp4", "hdf5.mp4"])
def test_every_flipped_bit_of_a_record_is_named_or_changes_nothing(space: SpaceFolder, kind: str) -> None:
    """Of 30,296 flips of two records, 320 gave wrong numbers while a deep check had nothing to say."""
    model, text = _texts(space)[kind]
    whole = parse_record(model, text, WHERE)
    assert b'"digest":"' in text
    unnoticed = _unnoticed(text, lambda flipped: parse_record(model, flipped, WHERE), range(len(text)))
    assert all(record == whole for _, _, record in unnoticed)
    assert len(unnoticed) <= 8 * len(' "digest"')  # a flip of the name of that field makes an older record of it


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_records_of_older_versions_are_held_against_the_space_and_the_files(space: SpaceFolder, store: str) -> None:
    """Without a digest a flip may change what is said of the source, never which bytes are taken for which rows of Zarr."""
    text = parse_record(*_texts(space)[f"{store}.mp4"], WHERE).model_dump_json().encode()
    assert b"digest" not in text

    def places(flipped: bytes) -> object:
        try:
            record = CommitRecord.model_validate_json(flipped)
        except ValidationError as error:
            raise CacheCorruptError from error
        if problem := commit_contradiction(record, space.record):
            raise CacheCorruptError(problem)
        return {
            it.name: (it.dtype, list(extents(it.raw, it.stream.row_bytes, 0, it.shape[0])) if it.raw else "slow")
            for it in record.streams
        }

    whole = places(text)
    first, second, last = (text.index(name) for name in (b'"patch"', b'"frame"', b'"files"'))
    digits = [place for place in range(second, last) if text[place : place + 1].isdigit()]
    unnoticed = [
        text[:place].rpartition(b'":')[0].rpartition(b'"')[2]
        for place, _, found in _unnoticed(text, places, [*range(first, second), *digits])
        if found != whole
    ]
    # In HDF5 there is room between datasets: `verify --deep` asks the file itself where they lie.
    assert set(unnoticed) <= ({b"offset"} if store == "hdf5" else set())


def test_a_deep_check_asks_an_hdf5_file_where_its_rows_begin(tmp_path: Path) -> None:
    """An offset of 4094 instead of 4096 shifted every token, and no bytes were damaged."""
    space = create_space(tmp_path, tiny.tiny_spec())
    tiny.commit_video(space, "a.mp4", num_rows=5, store="hdf5")
    folder = space.folder("a.mp4")
    assert folder
    streams = json.loads((folder / COMMIT_FILE).read_bytes())["streams"]
    assert verify(tmp_path, deep=True).findings == []
    streams[0]["raw"]["offset"] -= 2
    tiny.edit_record(folder / COMMIT_FILE, streams=streams)
    (finding,) = verify(tmp_path, deep=True).findings
    assert (finding.key, finding.file) == ("a.mp4", COMMIT_FILE)
    assert "its rows begin at byte" in finding.problem


CLAIMS = {
    "rows of 10^9": {"num_rows": 10**9},
    "rows of 10^12": {"num_rows": 10**12, "num_valid": 10**12},
    "more valid rows than rows": {"num_valid": 6},
}


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("claim", [*CLAIMS, "10^12 everywhere", "a negative shape", "no shape", "files of 10^12 rows"])
def test_what_a_record_claims_is_checked_before_memory_is_reserved(
    tmp_path: Path, store: StoreKind, claim: str
) -> None:
    """Records that claim 10^9 and 10^12 rows, or negative shapes, ended in a traceback."""
    space = create_space(tmp_path, tiny.tiny_spec())
    tiny.commit_video(space, "a.mp4", num_rows=5, store=store)
    folder = space.folder("a.mp4")
    assert folder
    record = json.loads((folder / COMMIT_FILE).read_bytes())
    for stream in record["streams"]:
        stream["shape"] = {
            "10^12 everywhere": [10**12, *stream["shape"][1:]],
            "a negative shape": [-5, *stream["shape"][1:]],
            "no shape": [],
        }.get(claim, stream["shape"])
        if claim == "files of 10^12 rows":
            stream["raw"]["rows_per_file"] = 10**12
    fields = {"num_rows": 10**12} if claim == "10^12 everywhere" else CLAIMS.get(claim, {})
    if store == "hdf5" and claim == "files of 10^12 rows":
        pytest.skip("all rows lie in one file, however many it could hold")
    tiny.edit_record(folder / COMMIT_FILE, streams=record["streams"], **fields)
    with pytest.raises(CacheCorruptError, match="qle cache verify"):
        Space(open_space(space.path)).video("a.mp4")


@pytest.mark.parametrize(
    "change",
    [
        {"row_shape": [2**40, 2**40, 2]},
        {"row_shape": [2, -2, 8]},
        {"row_shape": [0, 2, 8]},
        {"dtype": "object"},
        {"axes": []},
    ],
)
def test_a_space_whose_rows_nobody_could_hold_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = create_space(tmp_path, tiny.tiny_spec()).path / SPACE_FILE
    patch, frame = json.loads(path.read_bytes())["streams"]
    tiny.edit_record(path, streams=[patch | change, frame])
    with pytest.raises(CacheError, match="contradicts itself"):
        open_space(path.parent)


def test_caches_of_older_versions_are_read_as_before(tmp_path: Path) -> None:
    """Their records carry no digest."""
    space = create_space(tmp_path, tiny.tiny_spec())
    tiny.commit_video(space, "a.mp4", num_rows=5)
    before = Space(space).video("a.mp4").patch[:]
    for path in [tmp_path / CACHE_FILE, *tmp_path.rglob(SPACE_FILE), *tmp_path.rglob(COMMIT_FILE)]:
        tiny.edit_record(path)
        assert "digest" not in path.read_text()
    assert (Space(open_space(space.path)).video("a.mp4").patch[:] == before).all()
