"""Checkpoints: complete or absent, two of them, and every generator of random numbers."""

import json
import random
from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import torch

from qle.durable import fits_digest
from qle.errors import CheckpointError
from qle.train.run import _keep_threads
from qle.train.steps.checkpoints import Checkpoint, CheckpointFolder, Position, threads_of
from qle.train.steps.randomness import random_state, set_random_state
from tests.running import record_fields

CPU = torch.device("cpu")


def checkpoint(step: int) -> Checkpoint:
    position = Position(step=step, best_score=0.1 + 0.2, best_step=step - 1, num_worse=1, history_bytes=77)
    shared = torch.arange(4.0)
    tensors = {"weights": {"a": shared, "b": shared}, "optimiser": {"a|step": torch.tensor(3.0)}, "ema": {}}
    return Checkpoint(position=position, tensors=tensors)


def test_what_is_written_comes_back_bit_for_bit(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.newest() is None
    folder.write(checkpoint(5))
    found = folder.newest()
    assert found is not None
    assert found.position == checkpoint(5).position
    assert torch.equal(found.tensors["weights"]["b"], torch.arange(4.0))
    assert found.tensors["optimiser"]["a|step"].shape == ()
    assert "ema" not in found.tensors  # nothing to keep


def test_two_are_kept_and_the_newest_is_read(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (9, 10, 100):
        folder.write(checkpoint(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    assert folder.newest().position.step == 100
    folder.write(checkpoint(100))  # a run that came here again
    assert folder.newest().position.step == 100


def test_what_a_kill_left_behind_is_not_a_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(checkpoint(1))
    (tmp_path / ".step-00000002.tmp").mkdir()
    (tmp_path / "step-00000003").mkdir()  # emptied by someone
    assert folder.newest().position.step == 1
    folder.write(checkpoint(2))
    assert folder.newest().position.step == 2


def test_a_damaged_one_says_what_to_delete(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(checkpoint(1))
    (tmp_path / "step-00000001" / "state.json").write_text('{"step": 1, "bett')
    with pytest.raises(CheckpointError, match=r"damaged.*\n.*delete .*step-00000001"):
        folder.newest()


@pytest.mark.parametrize("name", ["optimiser", "weights"])
def test_one_that_lost_a_file_is_damaged(tmp_path, name):
    """It went on without its optimiser, to other numbers, and told nobody."""
    folder = CheckpointFolder(tmp_path)
    folder.write(checkpoint(1))
    (tmp_path / "step-00000001" / f"{name}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: missing\n.*delete .*step-00000001 "):
        folder.newest()


def test_every_generator_goes_on_where_it_was():
    random.seed(1)
    random.gauss(0, 1)  # leaves one number over
    np.random.seed(1)
    np.random.standard_normal()
    torch.manual_seed(1)
    state = {name: value.clone() for name, value in random_state(CPU).items()}
    expected = draw()
    draw()
    set_random_state(state, CPU)
    assert draw() == expected


def draw() -> tuple[float, ...]:
    return (random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), float(torch.rand(())))


def test_a_checkpoint_that_finds_no_room_leaves_nothing(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(checkpoint(1))
    position = checkpoint(2).position
    unwritable = Checkpoint(
        position=position, tensors={"weights": {"a": torch.arange(4.0)}, "x" * 300: {"b": torch.ones(1)}}
    )
    with pytest.raises(OSError, match="too long"):
        folder.write(unwritable)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_training_goes_on_with_the_threads_that_it_had_unless_told_otherwise(tmp_path, monkeypatch):
    """When it began cores may have been busy, and with other threads the last bits of its numbers would be others."""
    for name in ("QLE_THREADS", "OMP_NUM_THREADS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    before, notes = torch.get_num_threads(), []
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    assert threads_of(checkpoints.path) is None
    try:
        torch.set_num_threads(3)
        checkpoints.write(checkpoint(1))
        torch.set_num_threads(2)
        _keep_threads(tmp_path, notes.append)
        assert (torch.get_num_threads(), notes) == (3, ["threads: 3, as this training had before"])
        monkeypatch.setenv("QLE_THREADS", "2")
        torch.set_num_threads(2)
        _keep_threads(tmp_path, notes.append)
        assert (torch.get_num_threads(), len(notes)) == (2, 1)
    finally:
        torch.set_num_threads(before)
    state = checkpoints.path / "step-00000001" / "state.json"
    state.write_text(json.dumps({name: part for name, part in record_fields(state).items() if name != "num_threads"}))
    assert threads_of(checkpoints.path) is None
    assert checkpoints.newest().position.step == 1


def test_every_flipped_bit_of_a_checkpoint_is_named_or_changes_nothing(tmp_path):
    """A step of 14 instead of 10, or another weight, gave a training that went on to other numbers without a word."""
    folder = CheckpointFolder(tmp_path)
    folder.write(Checkpoint(position=Position(step=10, best_score=0.5), tensors={"weights": {"w": torch.ones(3)}}))
    whole = folder.newest()
    unnoticed = 0
    for path in (tmp_path / "step-00000010").iterdir():
        content = bytearray(path.read_bytes())
        for place, bit in product(range(len(content)), range(8) if path.suffix == ".json" else [0]):
            content[place] ^= 1 << bit
            if path.suffix == ".json" and not fits_digest(bytes(content)):
                content[place] ^= 1 << bit
                continue
            path.write_bytes(content)
            with suppress(CheckpointError):
                read = folder.newest()
                assert read.position == whole.position
                assert torch.equal(read.tensors["weights"]["w"], whole.tensors["weights"]["w"])
                unnoticed += 1
            content[place] ^= 1 << bit
        path.write_bytes(content)
    assert unnoticed < 100  # of the name of the digest, which make an older record of it


def test_a_checkpoint_of_an_older_version_is_read_as_before(tmp_path):
    """It carries no digests."""
    folder = CheckpointFolder(tmp_path)
    folder.write(checkpoint(step=3))
    state = tmp_path / "step-00000003" / "state.json"
    state.write_text(json.dumps({name: part for name, part in record_fields(state).items() if name != "digests"}))
    assert folder.newest().position.step == 3
