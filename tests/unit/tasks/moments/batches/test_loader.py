"""Batches of a training: the same from every placement and after every resume, other ones in every epoch."""

import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qle.cache.reader import open_cache
from qle.cache.spaces import create_space
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.data.annotations import Annotation
from qle.data.loading.share import Share
from qle.data.streams.features import StreamSet, window_of, windows_of
from qle.data.streams.recipe import StreamChoice
from qle.errors import AnnotationError, ConfigError
from qle.heads.moments import MomentBatch
from qle.tasks.moments.batches import pack
from qle.tasks.moments.batches.config import MomentDataConfig
from qle.tasks.moments.batches.loader import MomentBatches, moment_batches
from qle.tasks.moments.batches.pack import BatchMemory, pack_placement
from qle.text.bank import QueryBank
from qle.text.request import TextRequest
from qle.text.stored import build_stored
from qle.text.tiny import build_tiny
from qle.text.words_file import write_stored_words
from qle.types import SpaceSpec, Stream
from tests import tiny_cache as tiny

NUM_VIDEOS = 13
PLACEMENTS = ("ram", "mapped", "streamed", "device")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

Make = Callable[..., MomentBatches]


def num_clips(video: int) -> int:
    """One is longer than a window of 12."""
    return 30 if video == 3 else 5 + video % 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    rng = np.random.default_rng(0)
    for name, dim in (("motion", 6), ("image", 4)):
        (folder / name).mkdir()
        for video in range(NUM_VIDEOS):
            values = rng.standard_normal((num_clips(video), dim)).astype(np.float16)
            np.savez(folder / name / f"film{video}.npz", features=values)
        import_features([folder / name], folder / "cache", ImportOptions(name=name, clip_length_s=2.0))
    return folder


@pytest.fixture(scope="module")
def annotations() -> list[Annotation]:
    rng, rows = np.random.default_rng(1), []
    for video in range(NUM_VIDEOS):
        for query in range(2):
            start, long = rng.uniform(0, 2 * num_clips(video) - 4), rng.uniform(1, 4)
            rows.append(
                Annotation(
                    qid=f"{video}-{query}",
                    video=f"film{video}",
                    query=f"thing {video} {query}",
                    windows=((start, start + long),),
                )
            )
    return rows


@pytest.fixture
def make(root: Path, annotations: list[Annotation]) -> Iterator[Make]:
    opened: list[MomentBatches] = []

    def open_batches(
        text: QueryBank | None = None, shard: tuple[int, int] = (0, 1), device: str = "cpu", **config: Any
    ) -> MomentBatches:
        settings = MomentDataConfig(**({"window_clips": 12, "items_per_batch": 4, "placement": "ram"} | config))
        streams = StreamSet.open(
            open_cache(root / "cache"), [StreamChoice.parse("motion"), StreamChoice.parse("image+tef")], settings
        )
        opened.append(
            moment_batches(
                streams, streams.match(annotations)[0], settings, Share(seed=7, device=device, shard=shard), text=text
            )
        )
        return opened[-1]

    yield open_batches
    for batches in opened:
        batches.close()


def flat(part: Any) -> dict[str, Any]:
    """Every value of a batch by name, its memory its own."""
    found: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if hasattr(value, "__dataclass_fields__"):
            found |= {f"{field.name}.{name}": inner for name, inner in flat(value).items()}
        else:
            found[field.name] = value.clone() if isinstance(value, Tensor) else value
    return found


def epoch_of(batches: MomentBatches, epoch: int, first: int = 0) -> list[dict[str, Any]]:
    batches.set_epoch(epoch, first)
    return [flat(batch) for batch in batches]


def assert_equal(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)
            else:
                assert value == other[name], name


@pytest.mark.slow
@pytest.mark.parametrize("long_videos", ["windows", "truncate", "pool"])
def test_all_placements_give_the_same(make: Make, long_videos: str) -> None:
    expected = [epoch_of(make(long_videos=long_videos), epoch) for epoch in range(2)]
    for placement in PLACEMENTS[1:]:
        batches = make(long_videos=long_videos, placement=placement)
        assert batches.placement.name == placement
        for epoch in range(2):
            assert_equal(epoch_of(batches, epoch), expected[epoch])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_devices_get_the_same(make: Make, tmp_path: Path, annotations: list[Annotation], placement: str) -> None:
    expected = epoch_of(make(text=bank_of(tmp_path, annotations)), 1)
    found = epoch_of(make(text=bank_of(tmp_path, annotations), placement=placement, device="cuda"), 1)
    assert all(batch["clips"].is_cuda and batch["words.states"].is_cuda for batch in found)
    on_host = [
        {name: value.cpu() if isinstance(value, Tensor) else value for name, value in one.items()} for one in found
    ]
    assert_equal(on_host, expected)


def test_features_are_those_that_localize_sees(make: Make, root: Path) -> None:
    settings = MomentDataConfig(window_clips=12)
    streams = StreamSet.open(
        open_cache(root / "cache"), [StreamChoice.parse("motion"), StreamChoice.parse("image+tef")], settings
    )
    for batch in epoch_of(make(), 0):
        assert batch["clips"].dtype == torch.float16
        for item, (key, first) in enumerate(zip(batch["videos"], batch["first_clips"], strict=True)):
            clips = streams.clips(key)
            count = min(12, clips.num_clips)
            if clips.num_clips <= 12:
                assert windows_of(clips.num_clips, streams.recipe) == ((first, count),)
            window = window_of(clips, first, first + count, streams.recipe)
            mask = batch["clip_mask"][item]
            assert mask.tolist() == [k < count for k in range(len(mask))]
            np.testing.assert_allclose(batch["clips"][item, :count].numpy(), window.features, atol=5e-4)
            assert not batch["clips"][item, count:].any()


def test_an_epoch_asks_everything_once_and_another_one_otherwise(make: Make, annotations: list[Annotation]) -> None:
    batches = make()
    first, second = epoch_of(batches, 0), epoch_of(batches, 1)
    for epoch in (first, second):
        asked = [batch["queries"][k] for batch in epoch for k in batch["query_index"].tolist()]
        assert sorted(asked) == sorted(one.query for one in annotations)
        for batch in epoch:
            for item, video in enumerate(batch["videos"]):
                assert batch["queries"][batch["query_index"][item]].split()[1] == video.removeprefix("film")
                other = int(batch["negative"][item])
                if batch["negative_mask"][item]:
                    assert batch["videos"][other] != video
    long = [
        {batch["first_clips"][k] for batch in epoch for k, video in enumerate(batch["videos"]) if video == "film3"}
        for epoch in (epoch_of(batches, number) for number in range(6))
    ]
    assert len(set().union(*long)) > 3
    pairs = [
        {
            (batch["queries"][query], *batch["targets.better"][item].tolist(), *batch["targets.worse"][item].tolist())
            for batch in epoch
            for item, query in enumerate(batch["query_index"].tolist())
        }
        for epoch in (first, second)
    ]
    assert len(pairs[0] & pairs[1]) < len(annotations) / 2


def test_a_resume_goes_on_in_the_middle(make: Make) -> None:
    for placement in ("ram", "streamed"):
        whole = epoch_of(make(placement=placement), 2)
        assert_equal(epoch_of(make(placement=placement), 2, first=3), whole[3:])
    batches = make()
    assert len(batches) == len(whole) == 7
    assert epoch_of(batches, 0, first=7) == []
    for epoch, first in ((-1, 0), (0, 8)):
        with pytest.raises(ConfigError, match="at most 7 batches"):
            batches.set_epoch(epoch, first)


def test_processes_share_the_items(make: Make) -> None:
    parts = [epoch_of(make(shard=(index, 2)), 1) for index in range(2)]
    whole = epoch_of(make(), 1)
    for batch, *split in zip(whole, *parts, strict=True):
        assert batch["videos"] == split[0]["videos"] + split[1]["videos"]
        torch.testing.assert_close(batch["clips"], torch.cat([part["clips"] for part in split]), rtol=0, atol=0)
        for name in ("targets.spans", "targets.relevant", "targets.better", "targets.worse"):
            torch.testing.assert_close(batch[name], torch.cat([part[name] for part in split]), rtol=0, atol=0)


def test_recordings_side_by_side(make: Make) -> None:
    for batch in epoch_of(make(by_source=True, queries_per_source=2), 0):
        sources = batch["sources"].tolist()
        assert [k for k, source in enumerate(sources) if source not in sources[:k]] == list(range(0, len(sources), 2))


def test_memory_goes_round_but_never_under_a_batch_that_is_held(make: Make) -> None:
    batches = make()
    batches.set_epoch(0)
    held = list(batches)
    again = epoch_of(batches, 0)
    for batch, copy in zip(held, again, strict=True):
        torch.testing.assert_close(batch.clips, copy["clips"], rtol=0, atol=0)
    memory = BatchMemory(np.dtype(np.float16), torch.device("cpu"))
    tensor, array = memory.take((2, 3))
    array[:] = 5
    part, place = tensor[1:], tensor.data_ptr()
    del tensor, array
    other, _ = memory.take((1, 6))
    assert other.data_ptr() != place
    assert part.tolist() == [[5, 5, 5]]
    del part
    assert memory.take((2, 2))[0].data_ptr() == place


# Text


def bank_of(tmp_path: Path, annotations: list[Annotation], dtype: type = np.float32) -> QueryBank:
    rng = np.random.default_rng(0)
    words = {
        one.query: (
            rng.standard_normal((3 + number % 9, 5)).astype(dtype),
            rng.standard_normal(6).astype(dtype),
            np.arange(1, 4 + number % 9),
        )
        for number, one in enumerate(annotations)
    }
    write_stored_words(tmp_path / "words.safetensors", words)
    return QueryBank(build_stored(TextRequest(name=str(tmp_path / "words.safetensors"))))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_words_of_a_frozen_encoder_come_with_the_batch(
    make: Make, tmp_path: Path, annotations: list[Annotation], dtype: type
) -> None:
    bank = bank_of(tmp_path, annotations, dtype)
    lengths = set()
    batches = make(text=bank)
    batches.set_epoch(1)
    for batch in batches:
        expected, words = bank.encode(batch.queries), batch.words
        assert words is not None
        assert words.states.dtype == torch.float32
        longest = expected.mask.shape[1]
        lengths.add(words.mask.shape[1])
        assert words.mask.shape[1] in (8, 11)
        assert not words.states[:, longest:].any()
        assert not words.mask[:, longest:].any()
        for name in ("states", "mask", "ids"):
            torch.testing.assert_close(getattr(words, name)[:, :longest], getattr(expected, name), rtol=0, atol=0)
        for name in ("sentence", "sentence_norm"):
            torch.testing.assert_close(getattr(words, name), getattr(expected, name), rtol=0, atol=0)
    # The longest query of all has 11 words: padding to 16 was refused by heads with places for 11, as if a query had 16.
    assert lengths <= {8, 11}
    assert 11 in lengths


def test_an_encoder_that_is_trained_is_asked_by_the_loop(make: Make, annotations: list[Annotation]) -> None:
    encoder = build_tiny(TextRequest(name="tiny"))
    assert all(batch["words"] is None for batch in epoch_of(make(text=QueryBank(encoder)), 0))
    encoder.requires_grad_(False)
    assert all(batch["words.states"].shape[2] == encoder.dim for batch in epoch_of(make(text=QueryBank(encoder)), 0))


# What is not as it should be


def torn_streams(tmp_path: Path, config: MomentDataConfig) -> StreamSet:
    """One video with a row of NaN, one of nothing else."""
    stream = Stream(name="frame", row_shape=(3,), axes=("dim",), dtype="float32")
    space = create_space(tmp_path, SpaceSpec(name="torn", hashed={"a": 1}, streams=(stream,), recorded={}))
    values = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    values[2, 1] = np.nan
    tiny.commit_rows(space, "a", np.arange(6.0), values={"frame": values})
    tiny.commit_rows(space, "b", np.arange(4.0), values={"frame": np.full((4, 3), np.inf, dtype=np.float32)})
    return StreamSet.open(open_cache(tmp_path), [StreamChoice.parse("torn+tef")], config)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_rows_that_are_no_numbers_are_masked(tmp_path: Path, placement: str, caplog: pytest.LogCaptureFixture) -> None:
    config = MomentDataConfig(items_per_batch=2, placement=placement)  # type: ignore[arg-type]
    rows = [Annotation(qid=video, video=video, query="it", windows=((1.0, 4.0),)) for video in "ab"]
    torn = torn_streams(tmp_path, config)
    with moment_batches(torn, torn.match(rows)[0], config, Share(seed=0), text=None) as batches:
        (batch,) = batches
        (again,) = batches
        assert batches.num_nonfinite_rows == 5
    torch.testing.assert_close(batch.clips, again.clips, rtol=0, atol=0)
    masks = dict(zip(batch.videos, batch.clip_mask.tolist(), strict=True))
    assert masks == {"a": [True, True, False, True, True, True], "b": [True, *[False] * 5]}
    assert batch.clips.dtype == torch.float32
    assert torch.isfinite(batch.clips).all()
    assert not batch.clips[~batch.clip_mask].any()
    assert batch.targets is not None
    assert dict(zip(batch.videos, batch.targets.counts, strict=True)) == {"a": 1, "b": 0}
    assert "a window has no clip" in caplog.text


def test_what_cannot_be_learned_from(make: Make, root: Path) -> None:
    config = MomentDataConfig()
    streams = StreamSet.open(open_cache(root / "cache"), [StreamChoice.parse("image")], config)
    row = Annotation(qid="1", video="film1", query="a", windows=(), is_labelled=False)
    with pytest.raises(AnnotationError, match="nothing can be learned"):
        moment_batches(streams, streams.match([row])[0], config, Share(seed=0), text=None)
    with pytest.raises(ConfigError, match="shard"):
        Share(seed=0, shard=(2, 2))
    with pytest.raises(ConfigError, match="seed -1"):
        Share(seed=-1)


# Placement


def test_a_mapped_pack_leaves_nothing_behind(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    batches = make(placement="mapped")
    assert isinstance(next(iter(batches)), MomentBatch)
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) in batches.placement.reason


def test_without_room_on_the_disk_nothing_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cpu, huge = torch.device("cpu"), 10**18
    assert pack_placement("auto", huge, cpu, 1, ram_bytes=huge * 2).name == "streamed"
    with pytest.raises(ConfigError, match="set TMPDIR"):
        pack_placement("mapped", huge, cpu, 1)
    with pytest.raises(ConfigError, match=r"data.placement=auto, fewer streams, or a longer data.clip_s"):
        pack_placement("ram", huge, cpu, 1)
    assert pack_placement("auto", 1000, cpu, 1).name == "ram"
    assert pack_placement("auto", 1000, cpu, 1, ram_bytes=2000).name == "mapped"


def test_long_videos_are_packed_piece_by_piece(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epoch_of(make(), 0)
    monkeypatch.setattr(pack, "CHUNK_ROWS", 7)
    assert_equal(epoch_of(make(), 0), expected)


@pytest.mark.parametrize("placement", ["ram", "mapped"])
def test_a_new_iteration_ends_the_one_before(make: Make, placement: str) -> None:
    batches = make(placement=placement)
    running = iter(batches)
    first = next(running)
    assert isinstance(first, MomentBatch)
    assert len(epoch_of(batches, 1)) == 7
    assert next(running, None) is None
    assert batches.wait_s > 0
