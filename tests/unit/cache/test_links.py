"""A stranger's cache with links in it: nothing outside of it is written, read as tokens or deleted, whatever command comes."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qle.cache import handles, leftovers
from qle.cache.layout import COMMIT_FILE, key_hash
from qle.cache.reader import Space, open_cache
from qle.cache.records import CommitRecord, read_record
from qle.cache.spaces import create_space, open_space
from qle.cache.states import states
from qle.cache.tools.convert import convert
from qle.cache.tools.inspect import inspect_cache, inspect_video
from qle.cache.tools.interchange import export_features
from qle.cache.tools.merge import merge
from qle.cache.tools.pack import pack
from qle.cache.tools.prune import KINDS, plan_prune, prune
from qle.cache.tools.relink import relink
from qle.cache.tools.verify import verify
from qle.durable import replace_file
from qle.errors import CacheCorruptError, QleError
from qle.search.pooled_update import open_pooled
from qle.tasks.retrieval.batches.frames import FrameSource
from qle.types import VideoSource
from tests.tiny_cache import KEY, commit_video, tiny_spec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of three videos and a pack, and beside it the files of a user."""
    root = tmp_path_factory.mktemp("strange")
    space = create_space(root / "cache", tiny_spec())
    for key in ("a.mp4", "b.mp4"):
        commit_video(space, key, num_rows=3)
    pack(root / "cache")
    commit_video(space, "c.mp4", num_rows=3)
    open_pooled(_frames(root))
    commit_video(space, KEY, num_rows=3)
    (root / "home" / "video").mkdir(parents=True)
    (root / "home" / "thesis.tex").write_text("precious")
    (root / "home" / "video" / "thesis.tex").write_text("precious")
    return root


def _frames(root: Path) -> FrameSource:
    return FrameSource(open_cache(root / "cache").space(), "frame", 3, keep_bytes=0)


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
    "packs": lambda space: space / "packs",
    "the array of a pack": lambda space: next(space.glob("packs/*")) / "frame",
    "runs": lambda space: space / "runs",
    "the notes of verify": lambda space: space / "runs" / "verify.jsonl",
    "the index": lambda space: space / "index.parquet",
    "a record": lambda space: next(space.glob(f"videos/{key_hash(KEY)[:2]}/*.zarr")) / COMMIT_FILE,
    "a pooled index": lambda space: space / "pooled-frame-3",
    "the lock of a pooled index": lambda space: space / "pooled-frame-3" / ".lock",
    "vectors of a pooled index": lambda space: next(space.glob("pooled-frame-3/vectors-*")),
    "the record of a pooled index": lambda space: space / "pooled-frame-3" / "pooled.json",
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
        lambda: [open_cache(cache).space().video(key).patch[:] for key in open_cache(cache).space()],
        lambda: inspect_cache(cache),
        lambda: inspect_video(cache, KEY),
        lambda: export_features(cache, root / "exported"),
        lambda: open_pooled(_frames(root)),
        lambda: prune(cache, plan_prune(cache, kinds=["space"], spaces=spaces)),
    ]


def _contents(home: Path) -> dict[str, tuple[int, bytes]]:
    """Every file but the index, which anybody may bring up to date, with the time when each file and folder was changed."""
    paths = [path for path in home.rglob("*") if path.name != "index.parquet"]
    return {
        path.relative_to(home).as_posix(): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in paths
    }


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


def _exchange(folder: Path, home: Path) -> None:
    """What somebody does who waits for the moment between a look and a step: the folder is a link to the home from now on."""
    folder.rename(folder.with_name(f"{folder.name}.away"))
    folder.symlink_to(home)


def test_a_link_to_itself_is_damage(strange: Path, tmp_path: Path) -> None:
    """The system calls that no missing file but "too many levels of links", which ended every command with a traceback."""
    root = Path(shutil.copytree(strange, tmp_path / "root"))
    array = PLACES["an array"](_space(root))
    shutil.rmtree(array)
    array.symlink_to(array.name)
    space = open_space(_space(root))
    assert {finding.problem.partition(",")[0] for finding in verify(root / "cache").findings} == {"missing"}
    (state,) = states(space, [VideoSource(key=KEY, path=root / "gone.mp4")])
    assert state.state == "damaged"
    with pytest.raises(CacheCorruptError, match="missing"):
        Space(space).video(KEY)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a file that nobody may delete")
def test_a_file_that_may_not_be_deleted_is_not_taken_for_a_folder() -> None:
    """It was said to be deleted, and stayed."""
    with pytest.raises(PermissionError, match="status"):
        handles.remove(Path("/proc/self"), Path("/proc/self/status"))


@pytest.mark.parametrize("step", ["remove", "rename", "replace"])
def test_a_link_that_comes_between_a_look_and_a_step_is_not_followed(tmp_path: Path, step: str) -> None:
    """The handle of the folder was opened before: the step happens there, wherever the name leads to by now."""
    space, home, folder = tmp_path / "space", tmp_path / "home", tmp_path / "space" / "tmp" / "x"
    folder.mkdir(parents=True)
    home.mkdir()
    for place in (folder, home):
        (place / "thesis.tex").write_text("precious")
    with handles.folder_handle(space, folder) as handle:
        _exchange(folder, home)
        if step == "remove":
            os.unlink("thesis.tex", dir_fd=handle)
        elif step == "rename":
            os.rename("thesis.tex", "away.tex", src_dir_fd=handle, dst_dir_fd=handle)
        else:
            replace_file(folder / "thesis.tex", b"other", dir_fd=handle)
    assert (home / "thesis.tex").read_text() == "precious"
    assert os.listdir(home) == ["thesis.tex"]


@pytest.mark.parametrize("is_there_before", [True, False])
@pytest.mark.parametrize("place", ["tmp", "tmp/x"])
def test_every_step_of_the_way_refuses_a_link(tmp_path: Path, place: str, is_there_before: bool) -> None:
    """Folders are walked part by part, so a link above the last part is as little followed as one in its place."""
    space, home = tmp_path / "space", tmp_path / "home"
    (home / "x").mkdir(parents=True)
    (home / "thesis.tex").write_text("precious")
    (home / "x" / "thesis.tex").write_text("precious")
    before = _contents(home)
    (space / place).parent.mkdir(parents=True)
    if is_there_before:
        (space / place).mkdir()
        _exchange(space / place, home)
    else:
        (space / place).symlink_to(home)
    file = space / "tmp" / "x" / "thesis.tex"
    for command in (
        lambda: handles.remove(space, file),
        lambda: handles.rename(space, file, file.with_name("away.tex")),
        lambda: handles.open_file(space, file, os.O_WRONLY | os.O_TRUNC),
        lambda: handles.make_folder(space, file.parent / "new"),
    ):
        with pytest.raises(CacheCorruptError, match=r"is a link to .*: qle follows none inside of a space"):
            command()
    assert _contents(home) == before


def test_deleting_a_folder_deletes_the_links_in_it_and_not_what_they_lead_to(tmp_path: Path) -> None:
    space, home, folder = tmp_path / "space", tmp_path / "home", tmp_path / "space" / "tmp" / "x"
    (folder / "deep").mkdir(parents=True)
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    before = _contents(home)
    (folder / "deep" / "folder").symlink_to(home)
    (folder / "deep" / "file").symlink_to(home / "thesis.tex")
    handles.remove(space, folder)
    assert not folder.exists()
    assert _contents(home) == before
