"""What the forward pass does when memory or numbers run out. The backbones here are the built-in one with a real fault added."""

import numpy as np
import pytest
import torch

import qle
from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.base import Backbone
from qle.errors import QleError
from qle.extract.decode.write import write_video
from qle.extract.engine.assembly import Batch
from qle.extract.engine.engine import Engine
from qle.extract.engine.mailbox import Mailbox
from qle.extract.engine.opening import EngineOptions
from qle.extract.engine.stages import ForwardStage
from qle.extract.engine.worklist import Pending, WorkList
from qle.extract.plan import discover
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.target import make_target

NATIVE = Sampling(mode="native")


class Faulty(Backbone):
    """The built-in backbone, which asks for absurd memory above `most_clips` clips and, where `is_hungry`, for each bright clip;
    it overflows float16 on bright frames."""

    def __init__(self, most_clips=10**9, *, is_hungry=False):
        self._is_hungry = is_hungry
        self._inner = build_backbone(BackboneRequest(name="tiny", device="cpu"))
        self._most_clips = most_clips
        for name in ("name", "preprocess", "context", "streams", "device", "compute_dtype"):
            setattr(self, name, getattr(self._inner, name))

    @classmethod
    def build(cls, request):
        return cls()

    def encode(self, frames):
        if len(frames) > self._most_clips or (self._is_hungry and (frames.float().mean((1, 2, 3, 4)) > 200).any()):
            torch.empty(1 << 60, dtype=torch.uint8)
        factor = 1 + 1e9 * (frames.float().mean((2, 3, 4)) > 200)
        encoded = self._inner.encode(frames)
        return {
            name: values * factor.reshape(*factor.shape, *[1] * (values.ndim - 2)) for name, values in encoded.items()
        }

    def provenance(self):
        return self._inner.provenance() | {"fault": "bright"}

    def recorded(self):
        return self._inner.recorded()


@pytest.fixture
def batch(rng):
    frames = rng.integers(0, 255, (7, 1, 224, 224, 3), dtype=np.uint8)
    return Batch(frames, [(None, clip) for clip in range(7)])


def forward(backbone, batch, tmp_path):
    """Everything that the stage says of one batch: tokens, notes, crash."""
    target = make_target(backbone, NATIVE, TokenOptions(dtype="float32"), tmp_path / "cache")
    sink = Mailbox(4)
    crashes = []
    stage = ForwardStage(sink, 1, crashes.append, crashes.append)
    stage.inbox.put((target, batch))
    stage.close()
    sink.finish()
    notes = []
    while not stage.notes.empty():
        notes.append(stage.notes.get())
    return sink.get(), notes, crashes


def test_out_of_memory_halves_the_pass_until_it_fits_and_says_so(batch, tmp_path):
    whole, _, _ = forward(Faulty(), batch, tmp_path)
    backbone = Faulty(most_clips=2)
    parts, notes, crashes = forward(backbone, batch, tmp_path)
    assert not crashes
    torch.testing.assert_close(parts.values["patch"], whole.values["patch"])
    assert [note.rpartition(": ")[2] for note in notes] == [
        "out of memory with 7 clips in a pass, going on with 3",
        "out of memory with 3 clips in a pass, going on with 1",
    ]


def test_when_not_even_one_clip_fits_the_run_ends_with_advice(batch, tmp_path):
    _, _, crashes = forward(Faulty(most_clips=0), batch, tmp_path)
    assert isinstance(crashes[0], QleError)
    assert "--context single" in str(crashes[0])


def test_a_lane_on_the_cpu_takes_one_thread_even_when_it_is_alone(batch, tmp_path, monkeypatch):
    """Two processes with one lane each on two cores took twice the time while each lane used both cores."""
    backbone, threads = Faulty(), []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda frames: threads.append(torch.get_num_threads()) or encode(frames))
    forward(backbone, batch, tmp_path)
    assert threads == [1]


def test_another_error_of_the_backbone_is_not_taken_for_memory(batch, tmp_path):
    batch.frames = batch.frames[:, :, :100]
    _, notes, crashes = forward(Faulty(), batch, tmp_path)
    assert not notes
    assert isinstance(crashes[0], ValueError)


def run_all(videos, target, **options):
    """The engine over a folder of videos, in the order of their names."""
    work = WorkList([Pending(source, (target,), False) for source in discover([str(videos)])], [target])
    settings = EngineOptions(sampling=NATIVE, durability="none", **options)
    return Engine(work, [target], settings, lambda progress: None).run()


def test_a_clip_for_which_memory_does_not_suffice_fails_its_video_where_others_fit(tmp_path):
    """The allocation that fails is a real one of torch, in the middle of a run that works."""
    videos = tmp_path / "videos"
    videos.mkdir()
    dark, bright = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
    for name, pictures in {"a": [dark] * 4, "b": [dark, bright, dark], "c": [dark] * 4}.items():
        write_video(videos / f"{name}.mp4", pictures, 10)
    target = make_target(Faulty(is_hungry=True), NATIVE, TokenOptions(), tmp_path / "cache")
    progress = run_all(videos, target, batch_frames=2)
    assert (progress.videos_done, progress.videos_failed) == (2, 1)
    assert target.folder.errors.latest()["b.mp4"].kind == "memory"
    assert "b.mp4: not enough memory for this video" in target.folder.errors.latest()["b.mp4"].message


@pytest.mark.slow
def test_numbers_that_cannot_be_stored_fail_their_video_and_are_never_in_the_cache(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    dark, bright = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
    write_video(videos / "fine.mp4", [dark] * 5, 10)
    write_video(videos / "overflows.mp4", [dark, bright, dark], 10)
    target = make_target(Faulty(), NATIVE, TokenOptions(), tmp_path / "cache")
    progress = run_all(videos, target)
    assert (progress.videos_done, progress.videos_failed) == (1, 1)
    assert target.folder.errors.latest()["overflows.mp4"].kind == "nonfinite"
    assert "row 1 (0.100 s)" in target.folder.errors.latest()["overflows.mp4"].message
    assert list(qle.open_cache(tmp_path / "cache").space()) == ["fine.mp4"]
    assert not any((target.folder.path / "tmp").iterdir())


def test_a_video_whose_numbers_cannot_be_stored_is_not_decoded_to_its_end(tmp_path):
    write_video(tmp_path / "x.mp4", [np.zeros((48, 64, 3), np.uint8)] * 30, 10)
    target = make_target(Faulty(), NATIVE, TokenOptions(), tmp_path / "cache")
    (source,) = discover([str(tmp_path / "x.mp4")])
    options = EngineOptions(
        sampling=NATIVE, durability="none", batch_frames=1, decoder="tests.faulty_decoders:Lingering"
    )
    work = WorkList([Pending(source, (target,), False)], [target])
    assert Engine(work, [target], options, lambda progress: None).run().videos_failed == 1
    assert not (tmp_path / "x.end").exists()


class CountingWorkList(WorkList):
    """Knows how many videos were in flight at a time, at most."""

    num_held = 0
    most_held = 0

    def take(self):
        pending = super().take()
        self.num_held += pending is not None
        self.most_held = max(self.most_held, self.num_held)
        return pending

    def release(self, target, key):
        super().release(target, key)
        self.num_held -= 1


@pytest.mark.slow
def test_videos_in_flight_are_bounded_however_few_rows_they_have(tmp_path, monkeypatch):
    """Three videos of one row would fill a batch, but no more than two may be open: the batch goes out half full."""
    monkeypatch.setattr("qle.extract.engine.engine.MAX_OPEN", 2)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(7):
        write_video(videos / f"{number}.mp4", [np.zeros((48, 64, 3), np.uint8)], 10)
    target = make_target(Faulty(), NATIVE, TokenOptions(tokens="frame"), tmp_path / "cache")
    work = CountingWorkList([Pending(source, (target,), False) for source in discover([str(videos)])], [target])
    options = EngineOptions(sampling=NATIVE, durability="none", batch_frames=3, num_workers=2)
    assert Engine(work, [target], options, lambda progress: None).run().videos_done == 7
    assert work.most_held == 2
