"""What killed commands leave is shown, and goes with the next command that may remove it."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from qle.cache import leftovers
from qle.cache.claims import Claims
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.tools import interchange, prune
from qle.cache.tools.inspect import inspect_cache
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.durable import is_orphaned, owned_name, replace_file
from qle.errors import CacheMissingError
from tests.tiny_cache import commit_video, nothing_left, run, tiny_spec, write_until


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path / "cache", tiny_spec())
    commit_video(space, "a.mp4", num_rows=4)
    return space


def _leave(space: Path) -> None:
    """The body of a process that dies with everything in its hands that a command can have there."""
    for prefix in (leftovers.COPY, leftovers.PACK, leftovers.NEW):
        folder = space / "tmp" / owned_name(prefix)
        folder.mkdir()
        (folder / "file").write_bytes(b"123")
    (space / "tmp" / "removed-0123" / "patch").mkdir(parents=True)
    (space.parent / ".qle-removed-0123").mkdir()
    for folder in (space, space / "runs", space.parent):
        (folder / owned_name(".qle-index.parquet.", ".tmp")).write_bytes(b"123")
    Claims(SpaceFolder(space, None)).try_acquire("x.mp4")  # type: ignore[arg-type]
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_kill_leaves_is_shown_until_a_command_removes_it(space: SpaceFolder) -> None:
    assert run(_leave, space.path) == -9
    mine = space.path / "tmp" / owned_name(leftovers.COPY)
    mine.mkdir()
    facts = inspect_cache(space.path.parent)
    assert (facts.spaces[0].num_leftovers, facts.num_leftovers) == (6, 2)
    leftovers.clear(space.path)
    assert [path.name for path in (space.path / "tmp").iterdir()] == [mine.name]  # of a living process
    mine.rmdir()
    assert nothing_left(space.path.parent)
    assert inspect_cache(space.path.parent).spaces[0].num_leftovers == 0


def test_prune_reclaims_what_a_kill_left(space: SpaceFolder) -> None:
    assert run(_leave, space.path) == -9
    root = space.path.parent
    prune.prune(root, prune.plan_prune(root))
    leftovers.clear(space.path)  # the claim, which might be an hour old before anybody takes it for a leftover
    assert nothing_left(root)


def test_names_of_older_versions_tell_no_owner_and_wait_until_they_are_old(space: SpaceFolder) -> None:
    folder = space.path / "tmp" / "copy-0123456789abcdef"
    folder.mkdir()
    leftovers.clear(space.path)
    assert folder.exists()
    assert prune.plan_prune(space.path.parent, idle_hours=1) == []
    os.utime(folder, (0, 0))
    assert [item.path for item in prune.plan_prune(space.path.parent)] == [folder]


def test_a_dead_attempt_stays_while_somebody_could_go_on_from_it(space: SpaceFolder) -> None:
    root = space.path.parent
    assert run(write_until, root, "zarr", "file_logged", 4) == -9  # times, and a shard
    leftovers.clear(space.path)
    (found,) = leftovers.leftovers(space.path)
    assert "a resume would go on from its" in found.reason
    leftovers.remove(found)
    assert run(write_until, root, "hdf5", "arrays_created") == -9  # where one file holds everything, none is complete
    leftovers.clear(space.path)
    assert nothing_left(root)


def test_the_rest_of_an_attempt_that_was_being_removed_goes(space: SpaceFolder) -> None:
    """Killed between its last file and itself, the folder told no owner, and stayed for a day."""
    rest = space.path / "tmp" / "0123456789abcdef.host.1.01234567"
    rest.mkdir()
    leftovers.clear(space.path)
    assert nothing_left(space.path.parent)


def test_an_owner_is_known_by_its_start_too() -> None:
    name = owned_name("copy-")
    assert not is_orphaned(name)
    assert is_orphaned(f"{name}1")  # the same number of a process that began at another time
    assert not is_orphaned("copy-0123456789abcdef")
    assert not is_orphaned("copy-00.000000000000.1.2")  # of another machine


def test_replaced_files_name_their_process_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr("qle.durable.os.replace", lambda source, target, **handles: names.append(source.name))
    replace_file(tmp_path / "x.json", b"{}")
    assert names[0].startswith(".qle-x.json.")
    assert not is_orphaned(names[0])
    assert is_orphaned(names[0].replace(".tmp", "1.tmp"))


def _import_until(source: Path, root: Path, step: str) -> None:
    original = interchange.VideoWriter.open

    def die(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    interchange.VideoWriter.open = lambda *args, **named: original(*args, **named, on_step=die)  # type: ignore[method-assign]
    import_features([source], root, ImportOptions(name="x", fps=1))


@pytest.mark.parametrize("step", ["attempt_begun", "file_closed", "record_written", "renamed"])
def test_a_killed_import_leaves_nothing_when_it_is_run_again(tmp_path: Path, step: str) -> None:
    (tmp_path / "files").mkdir()
    for name in "ab":
        np.save(tmp_path / "files" / f"{name}.npy", np.ones((4, 8), np.float32))
    assert run(_import_until, tmp_path / "files", tmp_path / "cache", step) == -9
    assert inspect_cache(tmp_path / "cache").spaces[0].num_leftovers == 1
    report = import_features([tmp_path / "files"], tmp_path / "cache", ImportOptions(name="x", fps=1))
    assert report.num_imported + report.num_already == 2
    assert nothing_left(tmp_path / "cache")


def _delete_until(root: Path, name: str) -> None:
    prune.remove = lambda root, path: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    prune.prune(root, prune.plan_prune(root, kinds=["space"], spaces=[name]))


def test_a_killed_deletion_of_a_space_is_finished_by_the_same_command(space: SpaceFolder) -> None:
    """It said that no space began with that name."""
    root = space.path.parent
    assert run(_delete_until, root, "tiny-float16") == -9
    plan = prune.plan_prune(root, kinds=["space"], spaces=["tiny-float16"])
    assert len(plan) == 1
    prune.prune(root, plan)
    assert nothing_left(root)
    with pytest.raises(CacheMissingError):
        prune.plan_prune(root, kinds=["space"], spaces=["tiny-float16"])
