"""What a run survives: real kills, full disks, decoders that die. Nothing finished is lost, nothing half looks finished."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qle
from qle.cache.attempts import remove_attempt
from qle.extract.decode.decoder import Decoder, make_decoder
from tests.running import HEARS_CTRL_C, LONG_FRAMES, committed_bytes, here


@pytest.fixture(scope="module")
def undisturbed(long_videos, tmp_path_factory):
    """What a run that nobody disturbs leaves."""
    cache = tmp_path_factory.mktemp("undisturbed") / "cache"
    assert here(*arguments(long_videos, cache)).returncode == 0
    return committed_bytes(cache)


def arguments(videos, cache, *more):
    device = ("--device", "cpu") if "--device" not in more else ()
    return (
        "extract",
        "--videos",
        videos,
        "--cache",
        cache,
        "--backbone",
        "tiny",
        "--fps",
        "native",
        *device,
        "--workers",
        1,
        *more,
    )


def assert_intact(cache):
    """Each video that is there can be read to its last row."""
    space = qle.open_cache(cache).space()
    for key in space:
        video = space.video(key)
        assert np.isfinite(video.patch[:]).all()
        assert len(video.pts) == video.num_rows


@pytest.mark.faults
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_times_it_ends_with_the_same_bytes(long_videos, undisturbed, tmp_path, seed):
    rng = np.random.default_rng(seed)
    cache = tmp_path / "cache"
    line = [sys.executable, "-m", "qle", *map(str, arguments(long_videos, cache, "--quiet"))]
    for _ in range(3):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=float(rng.uniform(1.5, 5.0)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if any(cache.glob("*/space.json")):
            assert_intact(cache)
    assert here(*arguments(long_videos, cache)).returncode == 0
    assert committed_bytes(cache) == undisturbed
    assert not any(path for path in cache.glob("*/tmp/*"))


@pytest.mark.parametrize(("number", "devices"), [
    pytest.param(signal.SIGINT, "cpu", marks=pytest.mark.faults),
    pytest.param(signal.SIGTERM, "cpu", marks=pytest.mark.faults), (signal.SIGINT, "cpu,cpu"),
])  # fmt: skip
def test_interrupted_it_says_so_and_keeps_whole_shards(long_videos, undisturbed, tmp_path, extract, number, devices):
    """From within, when more than a shard is on disk: the resumed run must not do that shard again. The signal reaches
    all processes, as it does from a terminal or at the end of a batch job."""
    cache = tmp_path / "cache"
    watcher = (
        f"{HEARS_CTRL_C}import os\n"
        "from qle.cli import app, extract\n"
        "class Progress(extract.ExtractProgress):\n"
        "    def update(self, progress):\n"
        f"        if progress.rows_done > 900: os.killpg(0, {int(number)})\n"
        "extract.ExtractProgress = Progress\n"
        "if __name__ == '__main__': app.main()\n"
    )
    line = [sys.executable, "-c", watcher, *map(str, arguments(long_videos / "long.mp4", cache, "--device", devices))]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False, start_new_session=True)
    assert ended.returncode == 130, ended.stderr
    assert "interrupted" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not any(cache.glob("*/claims/*"))
    assert not any(cache.glob("*/errors.jsonl"))
    summary = extract(long_videos / "long.mp4", cache=cache)
    assert summary.exit_code == 0
    assert summary.rows_written < LONG_FRAMES
    expected = {path: digest for path, digest in undisturbed.items() if "long.mp4" in path}
    assert committed_bytes(cache) == expected


def descendants(pid):
    """Ids and command lines of the processes that a process has started, and those have started in turn."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [(int(child), Path(f"/proc/{child}/cmdline").read_text()), *descendants(int(child))]
    return found


def test_two_processes_share_a_list_and_one_may_die(extract, long_videos, undisturbed, tmp_path):
    killed: list[int] = []

    def kill_one(progress):
        if progress.rows_done > 100 and not killed:
            killed.append(next(pid for pid, line in descendants(os.getpid()) if "launch:serve" in line))
            os.kill(killed[0], signal.SIGKILL)

    cache = tmp_path / "cache"
    summary = extract(long_videos, cache=cache, devices=("cpu", "cpu"), on_progress=kill_one)
    assert killed
    assert summary.exit_code == 0
    assert committed_bytes(cache) == undisturbed


class AbortingDecoder(Decoder):
    """Dies as a broken codec does, on the second frame of videos whose name says so."""

    def frames(self, request, beat):
        for count, frame in enumerate(make_decoder("pyav").frames(request, beat)):
            if count == 1 and "short1" in request.path.name:
                os.abort()
            yield frame


def test_a_decoder_that_aborts_costs_one_video(extract, long_videos, undisturbed, tmp_path):
    cache = tmp_path / "cache"
    summary = extract(long_videos, cache=cache, decoder=f"{__name__}:AbortingDecoder")
    assert summary.exit_code == 4
    assert (summary.spaces[0].states["done"], summary.spaces[0].states["failed"]) == (2, 1)
    assert "SIGABRT" in summary.spaces[0].failures["short1.mp4"]
    assert committed_bytes(cache) == {path: digest for path, digest in undisturbed.items() if "short1" not in path}


def test_when_one_range_of_a_video_fails_the_others_are_not_decoded_to_their_end(extract, long_videos, tmp_path):
    shutil.copy(long_videos / "long.mp4", tmp_path)
    summary = extract(tmp_path / "long.mp4", num_workers=2, decoder="tests.faulty_decoders:Lingering")
    assert summary.spaces[0].failures == {"long.mp4": "decode: the first range is bad"}
    assert not (tmp_path / "long.end").exists()


def test_a_process_that_stood_still_leaves_the_video_that_others_took_over_and_goes_on(extract, long_videos, tmp_path):
    cache = tmp_path / "cache"

    def take_over(progress):
        for record in cache.glob("*/tmp/*/_ATTEMPT.json") if progress.rows_done > 100 else ():
            if "long.mp4" in record.read_text():
                remove_attempt(record.parent)

    summary = extract(long_videos, cache=cache, num_workers=1, on_progress=take_over)
    assert (summary.spaces[0].states["done"], summary.spaces[0].states["pending"]) == (2, 1)
    assert sorted(qle.open_cache(cache).space()) == ["short1.mp4", "short2.mp4"]


class DisturbingDecoder(Decoder):
    """Deletes or lengthens the file that it reads, where the name says so."""

    def frames(self, request, beat):
        for count, frame in enumerate(make_decoder("pyav").frames(request, beat)):
            if count == 1 and request.path.name == "goes.mp4":
                request.path.unlink()
            if count == 1 and request.path.name == "grows.mp4":
                request.path.write_bytes(request.path.read_bytes() + b"more")
            yield frame


def test_files_that_change_or_go_away_cost_themselves_only(extract, small_videos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("goes.mp4", "grows.mp4", "stays.mp4"):
        shutil.copy(small_videos / "b.mp4", folder / name)
    (folder / "link.mp4").symlink_to("nowhere.mp4")
    summary = extract(folder, decoder=f"{__name__}:DisturbingDecoder")
    assert list(qle.open_cache(tmp_path / "cache").space()) == ["stays.mp4"]
    failures = summary.spaces[0].failures
    assert sorted(failures) == ["goes.mp4", "grows.mp4", "link.mp4"]
    assert "went away while it was read" in failures["goes.mp4"]
    assert "changed while it was read" in failures["grows.mp4"]
    assert "cannot be read" in failures["link.mp4"]


def in_namespace(script):
    """Runs a shell script where it may mount things; 77 means that it may not."""
    namespace = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    ended = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, timeout=600, check=False)
    if ended.returncode == 77:
        pytest.skip("nothing can be mounted here")
    return ended


@pytest.mark.faults
def test_a_full_disk_ends_the_run_with_one_error_and_loses_nothing(long_videos, undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    cache = disk / "cache"
    kept = tmp_path / "kept"
    line = " ".join(map(str, arguments(long_videos, cache)))
    script = (
        f"mount -t tmpfs -o size=12m tmpfs {disk} || exit 77\n"
        f"{sys.executable} -m qle {line}; code=$?; cp -r {cache} {kept}; exit $code\n"
    )
    ended = in_namespace(script)
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "space" in ended.stderr
    assert_intact(kept)
    resumed = here(*arguments(long_videos, kept))
    assert resumed.returncode == 0, resumed.stderr
    assert committed_bytes(kept) == undisturbed


def test_a_read_only_cache_is_read_and_inspected_and_extraction_says_why_not(long_videos, tmp_path):
    cache = tmp_path / "cache"
    short = [long_videos / "short1.mp4"]
    assert here("extract", *short, "--cache", cache, "--backbone", "tiny", "--device", "cpu").returncode == 0
    shutil.rmtree(next(cache.glob("*/claims")))
    read = f"import qle; qle.open_cache('{cache}').space().video('short1').patch[:].mean()"
    lines = [
        f"mount --bind {cache} {cache} && mount -o remount,ro,bind {cache} || exit 77",
        f"{sys.executable} -m qle cache inspect {cache} && {sys.executable} -m qle cache verify --deep {cache} || exit 1",
        f'{sys.executable} -c "{read}" || exit 2',
        f"{sys.executable} -m qle extract {long_videos} --cache {cache} --backbone tiny --device cpu",
    ]
    ended = in_namespace("\n".join(lines))
    assert ended.returncode == 3, ended.stderr
    assert "read-only" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr
