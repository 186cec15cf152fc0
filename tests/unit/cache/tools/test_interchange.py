"""Feature files come in with times and go out as others expect them; broken ones are named and the rest goes on."""

import errno
import os
import re
import subprocess
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from qle.cache.reader import Space, open_cache
from qle.cache.spaces import create_space
from qle.cache.tools.feature_files import discover_features, safe_path
from qle.cache.tools.interchange import ImportOptions, export_features, import_features
from qle.cli.cache.exchange import load_tensors, save_tensor
from qle.data.rows import choose_rows
from qle.durable import UNNAMED, owned_name
from qle.errors import CacheError, CacheMissingError, CheckpointError, ConfigError, InputError
from tests.tiny_cache import commit_video, tiny_spec

pytestmark = pytest.mark.slow

CLIPS = ImportOptions(name="clip", clip_length_s=2.0)


def _features(seed: int, num_rows: int = 5, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, 6)).astype(dtype)


def _write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, features=values)
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(values), path)
    else:
        with h5py.File(path, "w") as file:
            file["features"] = values
    return path


def _space(root: Path) -> Space:
    return open_cache(root).space()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".h5", ".hdf5"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_form_comes_in(tmp_path: Path, suffix: str, dtype: str) -> None:
    for number, name in enumerate(("a", "ward 3/b")):
        _write(tmp_path / "in" / f"{name}{suffix}", _features(number, 5 + number, dtype))
    report = import_features([tmp_path / "in"], tmp_path / "cache", CLIPS, load_tensors=load_tensors)
    assert (report.num_imported, report.failed) == (2, {})
    space = _space(tmp_path / "cache")
    assert space.keys() == ("a", "ward 3/b")
    video = space.video("ward 3/b")
    np.testing.assert_array_equal(video.frame[:], _features(1, 6, dtype))
    assert video.frame.dtype == dtype
    assert video.pts.tolist() == [1, 3, 5, 7, 9, 11]
    assert video.valid.all()
    again = import_features([tmp_path / "in"], tmp_path / "cache", CLIPS, load_tensors=load_tensors)
    assert (again.num_imported, again.num_already) == (0, 2)


def test_an_hdf5_file_keyed_by_id(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        file["v_1"] = _features(1)
        file["ward/v_2"] = _features(2)
        file["v_3/features"] = _features(3)
        file["v_3/pts"] = np.arange(5, dtype=np.float32) / 4
        file["about"] = "no features"
    import_features([tmp_path / "all.hdf5"], tmp_path / "cache", ImportOptions(name="x", fps=4))
    space = _space(tmp_path / "cache")
    assert space.keys() == ("v_1", "v_3", "ward/v_2")
    for number, key in ((1, "v_1"), (2, "ward/v_2"), (3, "v_3")):
        np.testing.assert_array_equal(space.video(key).frame[:], _features(number))
        assert space.video(key).pts.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_file_with_other_times_than_fps_says_is_refused(tmp_path: Path) -> None:
    """--fps beside times in the file won, and every row got a time that nobody had measured."""
    np.savez(tmp_path / "a.npz", features=_features(0), pts=np.arange(5) * 0.3)
    np.save(tmp_path / "b.npy", _features(1))
    report = import_features([tmp_path], tmp_path / "cache", ImportOptions(name="x", fps=2))
    assert (report.num_imported, list(report.failed)) == (1, ["a"])
    assert "row 1 is at 0.3 s, with --fps 2 it would be at 0.5 s; leave --fps out" in report.failed["a"]
    with pytest.raises(InputError, match="leave --fps out"):
        import_features([tmp_path / "a.npz"], tmp_path / "other", ImportOptions(name="x", fps=2))
    import_features([tmp_path / "a.npz"], tmp_path / "other", ImportOptions(name="x"))
    assert _space(tmp_path / "other").video("a").pts.tolist() == (np.arange(5) * 0.3).tolist()


@pytest.mark.parametrize(
    "place", ["external file", "external link", "soft link", "virtual", "linked group", "linked pts"]
)
def test_an_hdf5_file_brings_no_bytes_of_other_files(tmp_path: Path, place: str) -> None:
    """Features that lie elsewhere were copied into the cache, whatever file of the user they were."""
    secret = tmp_path / "home" / "secret.h5"
    secret.parent.mkdir()
    with h5py.File(secret, "w") as file:
        file["v"], file["pts"] = _features(7), np.arange(5.0)
    with h5py.File(tmp_path / "sent.h5", "w") as file:
        file["good"] = _features(1)
        if place == "external file":
            file.create_dataset("bad", (5, 8), "f4", external=[(str(secret), 0, 160)])
        elif place == "external link":
            file["bad"] = h5py.ExternalLink(str(secret), "/v")
        elif place == "soft link":
            file["bad"] = h5py.SoftLink("/good")
        elif place == "virtual":
            layout = h5py.VirtualLayout((5, 8), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "v", (5, 8))
            file.create_virtual_dataset("bad", layout)
        elif place == "linked group":
            file["bad"] = h5py.ExternalLink(str(secret), "/")
        else:
            file["bad/features"] = _features(2)
            file["bad/pts"] = h5py.ExternalLink(str(secret), "/pts")
    report = import_features([tmp_path / "sent.h5"], tmp_path / "cache", ImportOptions(name="x", fps=1))
    assert (report.num_imported, list(report.failed)) == (1, ["bad"])
    assert re.search("not followed|out of other files", report.failed["bad"])


def test_the_rule_of_times_is_part_of_the_space(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npy", _features(0))
    names = {
        import_features([path], tmp_path / "cache", options).space
        for options in (CLIPS, ImportOptions(name="clip", clip_length_s=1), ImportOptions(name="clip", fps=0.5))
    }
    assert len(names) == 3
    times = {tuple(open_cache(tmp_path / "cache").space(name).video("a").pts.tolist()) for name in names}
    assert times == {(1, 3, 5, 7, 9), (0.5, 1.5, 2.5, 3.5, 4.5), (0, 2, 4, 6, 8)}


def test_clips_run_from_the_beginning_of_the_video_to_the_end_of_the_last(tmp_path: Path) -> None:
    import_features([_write(tmp_path / "a.npy", _features(0))], tmp_path / "cache", CLIPS)
    rows = choose_rows(_space(tmp_path / "cache").video("a"), None)
    assert rows.edges_s.tolist() == [0, 2, 4, 6, 8, 10]
    assert rows.times_s.tolist() == [1, 3, 5, 7, 9]


def test_patch_maps_come_in_as_patches(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.standard_normal((3, 2, 2, 8))
    import_features([_write(tmp_path / "a.npy", values)], tmp_path / "cache", CLIPS)
    video = _space(tmp_path / "cache").video("a")
    np.testing.assert_array_equal(video.patch[:], values.astype(np.float32))


def test_bad_files_are_named_and_the_others_come_in(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    _write(folder / "b_good.npz", _features(0))
    (folder / "a_torn.npz").write_bytes((folder / "b_good.npz").read_bytes()[:100])
    np.savez(folder / "c_many.npz", one=_features(0), two=_features(1))
    np.save(folder / "d_pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    _write(folder / "e_other_dim.npy", np.ones((3, 7), np.float32))
    _write(folder / "f_nan.npy", np.full((3, 6), np.nan, np.float32))
    _write(folder / "g_empty.npy", np.ones((0, 6), np.float32))
    _write(folder / "h_ids.npy", np.ones((3, 6), np.int64))
    report = import_features([folder], tmp_path / "cache", CLIPS)
    assert report.num_imported == 1
    assert sorted(report.failed) == ["a_torn", "c_many", "d_pickled", "e_other_dim", "f_nan", "g_empty", "h_ids"]
    assert "one, two" in report.failed["c_many"]
    assert "(7,)" in report.failed["e_other_dim"]
    assert _space(tmp_path / "cache").keys() == ("b_good",)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".h5"])
@pytest.mark.parametrize("name", ["a_torn", "z_torn"])
def test_one_torn_file_is_named_and_the_others_come_in(tmp_path: Path, suffix: str, name: str) -> None:
    good = _write(tmp_path / "in" / f"good{suffix}", _features(0))
    for part, content in (("half", good.read_bytes()[: good.stat().st_size // 2]), ("text", b"no such thing")):
        (tmp_path / "in" / f"{name}_{part}{suffix}").write_bytes(content)
    report = import_features([tmp_path / "in"], tmp_path / "cache", CLIPS, load_tensors=load_tensors)
    assert (report.num_imported, sorted(report.failed)) == (1, [f"{name}_half", f"{name}_text"])
    assert _space(tmp_path / "cache").keys() == ("good",)


def test_times_of_a_file_must_ascend_and_be_one_a_row(tmp_path: Path) -> None:
    for name, pts in (
        ("good", [0, 1, 1, 2, 5]),
        ("back", [0, 2, 1, 3, 4]),
        ("nan", [0, 1, np.nan, 3, 4]),
        ("few", [0, 1]),
    ):
        np.savez(tmp_path / f"{name}.npz", features=_features(0), pts=np.array(pts))
    report = import_features([tmp_path], tmp_path / "cache", ImportOptions(name="x"))
    assert (report.num_imported, sorted(report.failed)) == (1, ["back", "few", "nan"])
    assert "does not ascend" in report.failed["back"]
    assert "(2,), expected 5 numbers" in report.failed["few"]


def test_code_in_a_pt_file_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"features": Evil()}, tmp_path / "a.pt")
    with pytest.raises((CheckpointError, InputError)):
        import_features([tmp_path / "a.pt"], tmp_path / "cache", CLIPS, load_tensors=load_tensors)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "cache").exists()


def test_a_changed_file_is_imported_anew(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npy", _features(0))
    import_features([path], tmp_path / "cache", CLIPS)
    _write(path, _features(1, num_rows=8))
    assert import_features([path], tmp_path / "cache", CLIPS).num_imported == 1
    np.testing.assert_array_equal(_space(tmp_path / "cache").video("a").frame[:], _features(1, num_rows=8))


@pytest.mark.parametrize(
    "options", [{"fps": 1.0, "clip_length_s": 1.0}, {"fps": 0.0}, {"clip_length_s": -1.0}, {"dtype": "int8"}]
)
def test_nonsense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ImportOptions(name="x", **options)  # type: ignore[arg-type]


def test_times_are_needed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npy", _features(0))
    with pytest.raises(ConfigError, match=r"(?s)no times for their rows.*pass --clip-length SECONDS .* or --fps"):
        import_features([path], tmp_path / "cache", ImportOptions(name="x"))
    assert not (tmp_path / "cache").exists()


def test_an_import_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / "in" / f"{name}.npz", np.full((3, 6), np.nan, np.float32))
    with pytest.raises(InputError, match="none of the 2 videos can be imported; 'a': it holds numbers that are not"):
        import_features([tmp_path / "in"], tmp_path / "cache", CLIPS)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt", ".h5"])
def test_one_odd_file_that_comes_first_does_not_decide_for_all(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path / "in" / f"a{suffix}", np.ones((5, 7), np.float32))
    for number in range(3):
        _write(tmp_path / "in" / f"b{number}{suffix}", _features(number))
    report = import_features([tmp_path / "in"], tmp_path / "cache", CLIPS, load_tensors=load_tensors)
    assert (report.num_imported, sorted(report.failed)) == (3, ["a"])
    assert "rows of (7,), most files and the space" in report.failed["a"]


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "a.npz", np.ones((5, 7), np.float32))
    _write(tmp_path / "in" / "b.npz", _features(0))
    with pytest.raises(InputError, match=r"'a' have rows of \(7,\); 'b' have rows of \(6,\)"):
        import_features([tmp_path / "in"], tmp_path / "cache", CLIPS)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "step", ["qle.cache.files.zarr_store.create", "qle.cache.writer.write_at", "qle.cache.attempts.write_file"]
)
def test_a_full_disk_stops_the_import_once_and_it_goes_on_later(tmp_path: Path, step: str) -> None:
    for number in range(3):
        _write(tmp_path / "in" / f"{number}.npz", _features(number))
    seen = []
    with pytest.MonkeyPatch.context() as patch:

        def fill_disk(done: int, total: int, key: str) -> None:
            seen.append(key)
            patch.setattr(step, _full_disk)

        with pytest.raises(CacheError, match="No space left on device") as caught:
            import_features([tmp_path / "in"], tmp_path / "cache", CLIPS, on_progress=fill_disk)
    assert "run the same command again" in str(caught.value)
    assert seen == ["0"]
    report = import_features([tmp_path / "in"], tmp_path / "cache", CLIPS)
    assert (report.num_imported, report.num_already, report.failed) == (2, 1, {})
    assert not list(_space(tmp_path / "cache").path.glob("tmp/*"))


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("inputs", ["nothing", "a.txt", "."])
def test_inputs_without_features(tmp_path: Path, inputs: str) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError):
        discover_features([tmp_path / inputs])


@pytest.mark.parametrize("form", ["npz", "npy", "pt", "h5"])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_goes_out_is_what_readers_see(tmp_path: Path, form: str, dtype: str) -> None:
    space = create_space(tmp_path / "cache", tiny_spec(dtype))
    commit_video(space, "a.mp4", num_rows=9)
    commit_video(space, "ward 3/b.mp4", num_rows=20_000 if form == "h5" else 12, seed=1)  # times beyond 64 kB
    out = tmp_path / ("out.h5" if form == "h5" else "out")
    export = {"stream": "patch", "form": form, "save_tensor": save_tensor}
    report = export_features(tmp_path / "cache", out, **export)  # type: ignore[arg-type]
    assert report.num_exported == 2
    video = _space(tmp_path / "cache").video("ward 3/b.mp4")
    path = out / f"ward 3/b.{form}"
    if form == "h5":
        with h5py.File(out) as file:
            values, pts = file["ward 3/b"][()], file["ward 3/b"].attrs["pts"]
        np.testing.assert_array_equal(pts, video.pts)
    elif form == "npz":
        with np.load(path) as file:
            values = file["features"]
            np.testing.assert_array_equal(file["pts"], video.pts)
    else:
        values = np.load(path) if form == "npy" else torch.load(path, weights_only=True).numpy()
    np.testing.assert_array_equal(values, video.patch[:])
    assert export_features(tmp_path / "cache", out, **export).num_already == 2  # type: ignore[arg-type]
    assert not [path for path in tmp_path.rglob("*") if "part" in path.name]


@pytest.mark.parametrize("form", ["npz", "h5"])
def test_out_and_in_again_keeps_times_and_numbers(tmp_path: Path, form: str) -> None:
    space = create_space(tmp_path / "cache", tiny_spec())
    commit_video(space, "ward 3/a.mp4", num_rows=9)
    out = tmp_path / ("out.h5" if form == "h5" else "out")
    export_features(tmp_path / "cache", out, form=form)  # type: ignore[arg-type]
    import_features([out], tmp_path / "again", ImportOptions(name="again"))
    one, two = (_space(tmp_path / name).video("a") for name in ("cache", "again"))
    np.testing.assert_array_equal(one.frame[:], two.frame[:])
    np.testing.assert_array_equal(one.pts, two.pts)


def test_what_a_killed_export_has_left_goes_with_the_next_one(tmp_path: Path) -> None:
    commit_video(create_space(tmp_path / "cache", tiny_spec()), "ward 3/a.mp4", num_rows=4)
    (tmp_path / "out" / "ward 3").mkdir(parents=True)
    with subprocess.Popen(["true"]) as ended:
        name = owned_name(UNNAMED, ".tmp").replace(f".{os.getpid()}.", f".{ended.pid}.")
    (tmp_path / "out" / "ward 3" / name).touch()
    export_features(tmp_path / "cache", tmp_path / "out", form="npz")
    assert os.listdir(tmp_path / "out" / "ward 3") == ["a.npz"]


def test_a_broken_off_export_goes_on_and_a_new_version_is_written(tmp_path: Path) -> None:
    space = create_space(tmp_path / "cache", tiny_spec())
    for number in range(3):
        commit_video(space, f"{number}.mp4", num_rows=4)

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    for form, out in (("npz", tmp_path / "out"), ("h5", tmp_path / "out.h5")):
        with pytest.raises(KeyboardInterrupt):
            export_features(tmp_path / "cache", out, form=form, on_progress=stop)  # type: ignore[arg-type]
        assert not (tmp_path / "out.h5").exists()
        report = export_features(tmp_path / "cache", out, form=form)  # type: ignore[arg-type]
        assert (report.num_already, report.num_exported) == (1, 2)
        if form == "npz":
            os.utime(out / "1.npz", (1, 1))  # written before the video was committed
            assert export_features(tmp_path / "cache", out, form=form).num_exported == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_another_stream_is_not_taken_for_the_one_that_is_there(tmp_path: Path, form: str) -> None:
    """Files of `frame` were left standing, and counted, when `patch` was asked for."""
    commit_video(create_space(tmp_path / "cache", tiny_spec()), "a.mp4", num_rows=4)
    export_features(tmp_path / "cache", tmp_path / "out", form=form)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="another stream or space"):
        export_features(tmp_path / "cache", tmp_path / "out", form=form, stream="patch")  # type: ignore[arg-type]


def test_an_h5_file_of_other_videos_or_another_stream_is_written_anew(tmp_path: Path) -> None:
    space = create_space(tmp_path / "cache", tiny_spec())
    for key in ("a.mp4", "b.mp4"):
        commit_video(space, key, num_rows=4)
    out = tmp_path / "out.h5"
    export_features(tmp_path / "cache", out, form="h5", keys=["a.mp4"])
    assert export_features(tmp_path / "cache", out, form="h5").num_exported == 2
    assert export_features(tmp_path / "cache", out, form="h5").num_already == 2
    assert export_features(tmp_path / "cache", out, form="h5", stream="patch").num_exported == 2
    with h5py.File(out) as file:
        assert {name: dataset.ndim for name, dataset in file.items()} == {"a": 4, "b": 4}


def test_hostile_and_clashing_keys(tmp_path: Path) -> None:
    space = create_space(tmp_path / "cache", tiny_spec())
    for key in ("../../up.mp4", "/etc/x.mp4", "same.mp4", "same.avi"):
        commit_video(space, key, num_rows=4)
    export_features(tmp_path / "cache", tmp_path / "out")
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npz"))
    assert written == ["%2E./%2E./up.mp4.npz", "etc/x.mp4.npz", "same.avi.npz", "same.mp4.npz"]
    assert safe_path("a/../b").as_posix() == "a/%2E./b"


def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    commit_video(create_space(tmp_path, tiny_spec()), num_rows=4)
    with pytest.raises(CacheMissingError, match="it has patch, frame"):
        export_features(tmp_path, tmp_path / "out", stream="clip")


@pytest.mark.parametrize("form", ["npz", "h5"])
def test_a_place_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path, form: str) -> None:
    commit_video(create_space(tmp_path / "cache", tiny_spec()), num_rows=4)
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot write"):
        export_features(tmp_path / "cache", tmp_path / "file" / "out", form=form)  # type: ignore[arg-type]


@pytest.mark.parametrize("bomb", ["rows", "a chunk", "times", "text"])
def test_an_hdf5_file_that_would_fill_the_memory_is_refused_unread(tmp_path: Path, bomb: str) -> None:
    """Datasets promise as many rows as they like, and unwritten ones are read as zeros."""
    with h5py.File(tmp_path / "sent.h5", "w") as file:
        file["good"] = _features(1)
        if bomb == "rows":
            file.create_dataset("bad", (10**12, 6), "f4", chunks=(1024, 6), compression="gzip")
        elif bomb == "a chunk":
            file.create_dataset("bad", (5, 6), "f4", maxshape=(None, 6), chunks=(10**8, 6), compression="gzip")
        elif bomb == "times":
            file["bad/features"] = _features(2)
            file.create_dataset("bad/pts", (10**12,), "f8", chunks=(1024,), compression="gzip")
        else:
            file.create_dataset("bad", (10**9, 6), h5py.string_dtype(), chunks=(1024, 6), compression="gzip")
    tracemalloc.start()
    report = import_features([tmp_path / "sent.h5"], tmp_path / "cache", ImportOptions(name="x", fps=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.num_imported, list(report.failed)) == (1, ["bad"])
    assert re.search("made to fill the memory|expected numbers", report.failed["bad"])
    assert peak < 64 << 20
