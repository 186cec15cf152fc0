"""A stranger's cache with links in it: nothing outside of it is written, read as tokens or deleted, whatever command comes."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qle.cache import leftovers
from qle.cache.layout import COMMIT_FILE, key_hash
from qle.cache.reader import Space, open_cache
from qle.cache.records import CommitRecord, read_record
from qle.cache.spaces import create_space, open_space
from qle.cache.states import states
from qle.cache.tools.convert import convert
from qle.cache.tools.merge import merge
from qle.cache.tools.pack import pack
from qle.cache.tools.prune import KINDS, plan_prune, prune
from qle.cache.tools.relink import relink
from qle.cache.tools.verify import verify
from qle.errors import CacheCorruptError, QleError
from qle.types import VideoSource
from tests.tiny_cache import KEY, commit_video, tiny_spec


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of three videos and a pack, and beside it the files of a user."""
    root = tmp_path_factory.mktemp("strange")
    space = create_space(root / "cache", tiny_spec())
    for key in ("a.mp4", "b.mp4"):
        commit_video(space, key, num_rows=3)
    pack(root / "cache")
    commit_video(space, "c.mp4", num_rows=3)
    commit_video(space, KEY, num_rows=3)
    (root / "home" / "video").mkdir(parents=True)
    (root / "home" / "thesis.tex").write_text("precious")
    (root / "home" / "video" / "thesis.tex").write_text("precious")
    return root


def _space(root: Path) -> Path:
    (space,) = (root / "cache").glob("tiny-*")
    return space


def _link(path: Path, home: Path) -> None:
    """A link to the home of the user in the place of whatever stands there, with that moved into the home."""
    if path.exists():
        shutil.move(path, home / "moved")
        path.symlink_to(home / "moved")
    else:
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(home)


PLACES: dict[str, Callable[[Path], Path]] = {
    "tmp": lambda space: space / "tmp",
    "a temp folder": lambda space: space / "tmp" / "removed-0123",
    "a released attempt": lambda space: space / "tmp" / f"{key_hash(KEY)[:16]}.host.1.0123.released",
    "a conversion": lambda space: space / "tmp" / "convert-hdf5",
    "a shelf": lambda space: space / "videos" / key_hash(KEY)[:2],
    "all videos": lambda space: space / "videos",
    "a video": lambda space: next(space.glob(f"videos/{key_hash(KEY)[:2]}/*.zarr")),
    "an array": lambda space: next(space.glob(f"videos/{key_hash(KEY)[:2]}/*.zarr")) / "patch",
    "a pack": lambda space: next(space.glob("packs/*")),
    "claims": lambda space: space / "claims",
    "the log": lambda space: space / "errors.jsonl",
}


def _everything(root: Path) -> list[Callable[[], object]]:
    """Every command that a user might give to a cache that somebody sent."""
    cache = root / "cache"
    spaces = [name for name in os.listdir(cache) if name.startswith("tiny-")]
    return [
        lambda: prune(cache, plan_prune(cache, kinds=[kind for kind in KINDS if kind != "space"], idle_hours=0)),
        lambda: commit_video(open_space(_space(root)), KEY, num_rows=3, seed=1),
        lambda: leftovers.clear(_space(root)),
        lambda: convert(cache, store="hdf5"),
        lambda: pack(cache),
        lambda: relink(cache, [root / "home"]),
        lambda: merge([cache], root / "merged"),
        lambda: states(open_space(_space(root)), [VideoSource(key=KEY, path=root / "x")]),
        lambda: verify(cache, deep=True),
        lambda: prune(cache, plan_prune(cache, kinds=["space"], spaces=spaces)),
    ]


def _contents(home: Path) -> dict[str, bytes]:
    """Every file but the index, which anybody may bring up to date."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "index.parquet"]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("place", PLACES)
def test_links_of_a_strangers_cache_are_followed_by_nobody(strange: Path, tmp_path: Path, place: str) -> None:
    """A released attempt that was a link was emptied by a plain extraction, tmp/ and a folder of videos by `prune`."""
    root = Path(shutil.copytree(strange, tmp_path / "root", symlinks=True))
    _link(PLACES[place](_space(root)), root / "home")
    before = _contents(root / "home")
    for command in _everything(root):
        with suppress(QleError):
            command()
        assert _contents(root / "home") == before


def test_a_linked_space_loses_only_the_link(strange: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(strange, tmp_path / "root"))
    _link(_space(root), root / "home")
    before = _contents(root / "home")
    assert len(open_cache(root / "cache").space()) == 4  # a link to a whole space is the user's
    plan = plan_prune(root / "cache", kinds=["space"], spaces=["tiny"])
    prune(root / "cache", plan)
    assert _contents(root / "home") == before
    assert open_cache(root / "cache").spaces == ()


def test_a_link_to_the_whole_cache_is_followed(strange: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(strange, tmp_path / "root"))
    (root / "link").symlink_to(root / "cache")
    assert verify(root / "link", deep=True).findings == []
    assert len(Space(create_space(root / "link", tiny_spec()))) == 4


def test_a_pipe_in_place_of_a_record_keeps_nobody_waiting(strange: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(strange, tmp_path / "root"))
    record = PLACES["a video"](_space(root)) / COMMIT_FILE
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(CacheCorruptError, match="no file of its own"):
        read_record(CommitRecord, record)
    (finding,) = verify(root / "cache").findings
    assert finding.file == COMMIT_FILE
