"""From files to committed tokens, through the engine and the command line."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import qle
from qle.backbones import BackboneRequest
from qle.errors import CacheMissingError, ConfigError, InputError
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from tests.running import command, committed_bytes, here

FPS = 10

KEYS = ["a.mp4", "b.mp4", "below/a.mp4"]


def only_space(summary):
    return qle.open_cache(Path(summary.cache)).space()


def test_every_frame_becomes_a_row_with_its_time(extract):
    summary = extract()
    assert summary.exit_code == 0
    assert summary.spaces[0].states["done"] == 3
    space = only_space(summary)
    assert sorted(space) == KEYS
    for key, num_frames in zip(KEYS, (41, 3, 23), strict=True):
        video = space.video(key)
        assert video.patch[:].shape == (num_frames, 14, 14, 64)
        np.testing.assert_allclose(video.pts, np.arange(num_frames) / FPS, atol=1e-9)
        np.testing.assert_allclose(video.frame[:], video.patch[:].astype(np.float32).mean((1, 2)), atol=2e-2)
        assert np.isfinite(video.patch[:]).all()
        assert video.valid.all()


def test_results_do_not_depend_on_what_a_video_shares_its_batches_with(extract, small_videos, tmp_path):
    together = committed_bytes(Path(extract(cache=tmp_path / "together").cache))
    for options in ({"batch_frames": 32, "num_workers": 2}, {"batch_frames": 32, "store": "zarr"}):
        apart: dict[str, str] = {}
        for key in KEYS:
            summary = extract(
                small_videos / key, root=small_videos, cache=tmp_path / f"apart{len(options)}{options}", **options
            )
            apart |= committed_bytes(Path(summary.cache))
        assert apart == together


def test_a_second_run_does_nothing_and_a_new_video_is_all_it_adds(extract, small_videos, tmp_path):
    first = extract(small_videos / "a.mp4", small_videos / "b.mp4")
    before = committed_bytes(Path(first.cache))
    again = extract(small_videos / "a.mp4", small_videos / "b.mp4")
    assert (again.rows_written, again.exit_code) == (0, 0)
    more = extract(small_videos)
    assert more.rows_written == 23
    assert {path: digest for path, digest in committed_bytes(Path(more.cache)).items() if path in before} == before


def test_a_changed_file_is_extracted_anew_and_replaces_the_old_tokens(extract, small_videos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.mp4").write_bytes((small_videos / "a.mp4").read_bytes())
    assert only_space(extract(folder)).video("x.mp4").num_rows == 41
    (folder / "x.mp4").write_bytes((small_videos / "b.mp4").read_bytes())
    summary = extract(folder)
    assert (summary.rows_written, summary.exit_code) == (3, 0)
    assert only_space(summary).video("x.mp4").num_rows == 3


def test_the_same_name_from_another_folder_replaces_nothing(extract, small_videos, tmp_path):
    """Two wards with equal file names: once the second took the place of the first without a word."""
    for ward, name in (("ward1", "a.mp4"), ("ward2", "b.mp4")):
        (tmp_path / ward).mkdir()
        (tmp_path / ward / "v.mp4").write_bytes((small_videos / name).read_bytes())
    before = committed_bytes(Path(extract(tmp_path / "ward1").cache))
    with pytest.raises(InputError, match="--root"):
        extract(tmp_path / "ward2")
    assert committed_bytes(tmp_path / "cache") == before
    both = extract(tmp_path / "ward1", tmp_path / "ward2", root=tmp_path)
    assert sorted(only_space(both)) == ["v.mp4", "ward1/v.mp4", "ward2/v.mp4"]
    (tmp_path / "ward1" / "v.mp4").unlink()  # moved, not another one
    assert extract(tmp_path / "ward2").rows_written == 3


def test_another_part_of_a_video_is_extracted_anew(extract, small_videos, tmp_path):
    manifest = tmp_path / "list.csv"
    for start, end in ((0, 1), (1, 3)):
        manifest.write_text(f"path;key;start_s;end_s\n{small_videos / 'a.mp4'};part;{start};{end}\n")
        video = only_space(extract(manifest)).video("part")
        np.testing.assert_allclose(video.pts, np.arange(start * FPS, end * FPS) / FPS, atol=1e-9)
    assert extract(manifest).rows_written == 0


@pytest.mark.parametrize("harm", ["gone", "empty", "foreign"])
def test_a_commit_record_that_cannot_be_used_costs_its_video_only(extract, small_videos, harm):
    summary = extract()
    before = committed_bytes(Path(summary.cache))
    record = next(Path(summary.cache).glob("*/videos/*/b.mp4.zarr/_COMMIT.json"))
    other = next(Path(summary.cache).glob("*/videos/*/a.mp4.zarr/_COMMIT.json"))
    if harm == "gone":
        record.unlink()
    else:
        record.write_bytes(b"" if harm == "empty" else other.read_bytes())
    again = extract()
    assert (again.rows_written, again.exit_code) == (3, 0)
    assert committed_bytes(Path(again.cache)) == before


def test_a_repaired_video_is_tried_again_unasked(extract, small_videos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.mp4").write_bytes(b"cut off while it was copied")
    assert extract(folder).exit_code == 4
    (folder / "x.mp4").write_bytes((small_videos / "b.mp4").read_bytes())
    assert extract(folder).exit_code == 0


def test_a_copy_with_a_new_date_is_still_the_same_video(extract, small_videos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.mp4").write_bytes((small_videos / "b.mp4").read_bytes())
    extract(folder)
    os.utime(folder / "x.mp4", (1, 1))
    assert extract(folder).rows_written == 0


def test_a_damaged_video_is_extracted_anew(extract):
    summary = extract()
    before = committed_bytes(Path(summary.cache))
    shard = max(Path(summary.cache).glob("*/videos/**/patch/**/*"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-100])
    again = extract()
    assert again.rows_written > 0
    assert committed_bytes(Path(again.cache)) == before


def test_one_decode_feeds_several_backbones(extract, tmp_path):
    wide = BackboneRequest(name="tiny", resize="letterbox")
    both = extract(backbones=(BackboneRequest(name="tiny"), wide), cache=tmp_path / "both")
    assert both.rows_written == 2 * (41 + 3 + 23)
    apart = extract(cache=tmp_path / "apart")
    apart = extract(backbones=(wide,), cache=tmp_path / "apart")
    assert committed_bytes(Path(both.cache)) == committed_bytes(Path(apart.cache))


def test_a_backbone_that_comes_later_extracts_only_its_own(extract):
    extract()
    later = extract(backbones=(BackboneRequest(name="tiny"), BackboneRequest(name="tiny", resize="letterbox")))
    assert later.rows_written == 41 + 3 + 23
    assert [space.states["done"] for space in later.spaces] == [3, 3]


def test_the_same_backbone_twice_is_refused(extract):
    with pytest.raises(ConfigError, match="each once"):
        extract(backbones=(BackboneRequest(name="tiny"), BackboneRequest(name="tiny")))


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("tokens", [
    TokenOptions(grid=7), TokenOptions(dtype="int8"), TokenOptions(dtype="bfloat16"), TokenOptions(tokens="frame"),
])  # fmt: skip
def test_options_change_the_space_and_stay_close_to_the_full_tokens(extract, small_videos, store, tokens):
    full = only_space(extract(small_videos / "b.mp4")).video("b.mp4")
    summary = extract(small_videos / "b.mp4", tokens=tokens, store=store)
    cache = qle.open_cache(Path(summary.cache))
    assert len(cache.spaces) == 2
    video = cache.space(summary.spaces[0].space).video("b.mp4")
    frame = full.frame[:].astype(np.float32)
    np.testing.assert_allclose(video.frame[:].astype(np.float32), frame, atol=0.03)
    if tokens.tokens == "patch":
        patch = video.patch[:].astype(np.float32)
        assert patch.shape[1:3] == ((7, 7) if tokens.grid else (14, 14))
        np.testing.assert_allclose(patch.mean((1, 2)), frame, atol=0.03)
    else:
        with pytest.raises(CacheMissingError, match="has no stream 'patch'"):
            video.patch  # noqa: B018


@pytest.mark.parametrize(("sampling", "num_rows"), [
    (Sampling(mode="fps", fps=1), 5), (Sampling(mode="fps", fps=20), 82), (Sampling(mode="stride", stride=7), 6),
])  # fmt: skip
def test_sampling_rows_are_the_native_rows_at_their_times(extract, small_videos, sampling, num_rows):
    native = only_space(extract(small_videos / "a.mp4")).video("a.mp4")
    summary = extract(small_videos / "a.mp4", sampling=sampling)
    video = qle.open_cache(Path(summary.cache)).space(summary.spaces[0].space).video("a.mp4")
    assert video.num_rows == num_rows
    np.testing.assert_array_equal(video.pts, native.pts[video.index])
    np.testing.assert_array_equal(video.patch[:], native.patch[:][video.index])


def test_clips_of_a_manifest_hold_their_part_of_the_video(extract, small_videos, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,key,start,end\n{small_videos / 'a.mp4'},late,2,3\n{small_videos / 'a.mp4'},none,50,60\n")
    summary = extract(manifest)
    assert summary.exit_code == 4
    assert "no frame between 50.0 and 60.0" in summary.spaces[0].failures["none"]
    np.testing.assert_allclose(only_space(summary).video("late").pts, np.arange(20, 30) / FPS, atol=1e-9)


def test_failed_videos_are_recorded_and_tried_again_only_when_asked(extract, small_videos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "good.mp4").write_bytes((small_videos / "b.mp4").read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video at all")
    for is_retry, attempts in ((False, 1), (False, 1), (True, 2)):
        summary = extract(folder, retry_failed=is_retry)
        assert summary.exit_code == 4
        assert (summary.spaces[0].states["done"], summary.spaces[0].states["failed"]) == (1, 1)
        assert "cannot be opened" in summary.spaces[0].failures["bad.mp4"]
        lines = (Path(summary.cache) / summary.spaces[0].space / "errors.jsonl").read_text().splitlines()
        assert [json.loads(line)["attempt"] for line in lines] == list(range(1, attempts + 1))
    (folder / "bad.mp4").write_bytes((small_videos / "a.mp4").read_bytes())
    assert extract(folder, retry_failed=True).exit_code == 0


def test_the_command_line_extracts_inspects_and_resumes(small_videos, tmp_path):
    arguments = (
        "extract",
        "--videos",
        small_videos,
        "--cache",
        tmp_path / "cache",
        "--backbone",
        "tiny",
        "--device",
        "cpu",
    )
    planned = here(*arguments, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert not (tmp_path / "cache").exists()
    plan = json.loads(planned.stdout)
    assert (plan["num_pending"], plan["rows"]) == (3, 5 + 1 + 3)
    first = command(*arguments, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["rows_written"] == plan["rows"]
    second = command(*arguments)
    assert second.returncode == 0
    assert "3" in second.stdout
    inspected = here("cache", "inspect", tmp_path / "cache", "--json")
    assert inspected.returncode == 0, inspected.stderr


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["extract", "--videos", "nowhere", "--cache", "c", "--backbone", "tiny"], 3, "does not exist"),
    (["extract", "--videos", ".", "--cache", "c", "--backbone", "tinny"], 2, "did you mean 'tiny'"),
    (["extract", "--videos", ".", "--cache", "c"], 2, "no backbone"),
    (["extract", "--videos", ".", "--backbone", "tiny"], 2, "--cache"),
    (["extract", "--videos", ".", "--cache", "c", "--backbone", "tiny", "--fps", "fast"], 2, "--fps fast"),
    (["extract", "--videos", ".", "--cache", "c", "--backbone", "tiny", "--gpus", "x"], 2, "--gpus x"),
    (["extract", "--videos", ".", "--cache", "c", "--backbone", "tiny", "--fps", "2", "--stride", "3"], 2, "one of the two"),
    (["extract", "--videos", ".", "--cache", "c", "--backbone", "m2crl"], 2, "--weights"),
    (["cache", "inspect", "nowhere"], 3, "does not exist"),
    (["extract", "--no-such-flag"], 2, "No such option"),
])  # fmt: skip
def test_bad_input_gets_one_clear_error(small_videos, monkeypatch, arguments, code, message):
    monkeypatch.chdir(small_videos)
    ended = here(*arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (small_videos / "c").exists()


def test_bad_input_ends_a_process_of_its_own_in_the_same_way(small_videos, monkeypatch):
    monkeypatch.chdir(small_videos)
    ended = command("extract", "--videos", ".", "--cache", "c", "--backbone", "tinny")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: unknown backbone 'tinny': did you mean 'tiny'?")
    assert "Traceback" not in ended.stderr


def test_help_shows_examples_and_loads_no_torch():
    shown = command("extract", "--help")
    assert shown.returncode == 0
    assert "qle extract --videos recordings/" in shown.stdout


def test_an_extraction_leaves_torch_the_threads_that_it_found(extract):
    """Lanes take one thread each, and torch handed that on to the next thread that computed: a training after an extraction
    in the same process ran on one core."""
    before, after = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        extract()
        fresh = threading.Thread(target=lambda: after.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
    finally:
        torch.set_num_threads(before)
    assert after == [2]
