"""Foreign weight files: opened safely, fitted exactly, named by content."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qle.errors import CheckpointError
from qle.weights import load_exactly, load_file, state_digest


class Malicious:
    """Unpickling this would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_safetensors_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_file({"a": torch.arange(4.0)}, path)
    assert torch.equal(load_file(path)["a"], torch.arange(4.0))


@pytest.mark.parametrize("is_zip", [True, False])
def test_training_checkpoints_load_with_their_settings(tmp_path: Path, is_zip) -> None:
    """A learning rate from a numpy schedule and pickled arguments stand in every official file."""
    path = tmp_path / "checkpoint.pth"
    content = {
        "teacher": {"a": torch.arange(6.0).reshape(2, 3)},
        "args": argparse.Namespace(lr=np.float64(5e-4), epochs=np.int64(3), name="x"),
        "optimizer": {"param_groups": [{"lr": np.float64(1e-3), "weight_decay": np.float32(0.04)}]},
    }
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    loaded = load_file(path)
    assert torch.equal(loaded["teacher"]["a"], content["teacher"]["a"])
    assert loaded["args"].lr == 5e-4
    assert loaded["optimizer"]["param_groups"][0]["lr"] == 1e-3


def test_numpy_scalars_under_their_old_name(tmp_path: Path) -> None:
    """Files written before numpy 2 call them numpy.core.multiarray.scalar."""
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2), "lr": np.float64(0.5)}, path)
    renamed = tmp_path / "renamed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(renamed, "w", zipfile.ZIP_STORED) as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(item, data)
    assert load_file(renamed)["lr"] == 0.5


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_a_malicious_file_is_refused_by_name_and_never_run(tmp_path: Path, kind) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "made-by-the-file"
    content = {"teacher": {"a": torch.ones(2)}, "extra": Malicious(target)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps({"extra": Malicious(target)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=r"refused.*(posix\.mkdir|may hold code)"):
        load_file(path)
    assert not target.exists()


def test_the_allow_list_ends_with_the_call(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"args": argparse.Namespace(lr=1)}, path)
    load_file(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def good_file(folder: Path, kind: str) -> bytes:
    path = folder / f"good-{kind}"
    state = {f"layer{i}": torch.randn(64, 64) for i in range(4)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_cut_short_is_an_error_of_the_file(tmp_path: Path, kind, share) -> None:
    content = good_file(tmp_path, kind)
    path = tmp_path / "short.pth"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"short\.pth"):
        load_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404 Not Found</html>" * 20, "neither a safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\x80\x04K\x01.", "damaged"),
        (b"PK\x03\x04 and then nothing like an archive", r"cut short \(\d+ bytes of an archive without its end\)"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, content, message) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_file(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.pth: no such weights file$"):  # whatever option has named it
        load_file(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_file(tmp_path)


def test_digest_is_of_names_kinds_shapes_and_bytes() -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(1)}
    digest = state_digest(state)
    assert digest == state_digest(dict(reversed(state.items())))
    assert digest == state_digest(state | {"a": torch.arange(6.0).reshape(3, 2).T.contiguous().T.reshape(2, 3)})
    changed = [
        {"a": state["a"].reshape(3, 2)},
        {"a": state["a"].to(torch.float64)},
        {"a": state["a"].T.contiguous().T + torch.eye(2, 3) * 1e-6},
        {"d": torch.zeros(0)},
    ]
    assert len({digest, *(state_digest(state | change) for change in changed)}) == 5


def test_digest_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    state = {"a": torch.randn(8, 8), "b": torch.randn(3)}
    save_file(state, tmp_path / "one")
    torch.save(state, tmp_path / "two")
    assert state_digest(load_file(tmp_path / "one")) == state_digest(load_file(tmp_path / "two"))


def test_exactly_the_expected_tensors() -> None:
    module = nn.Linear(3, 2)
    load_exactly(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, where="here")
    assert torch.equal(module.weight, torch.ones(2, 3))
    wrong = {"weight": torch.ones(3, 2), **{f"extra{i}": torch.ones(1) for i in range(9)}}
    with pytest.raises(CheckpointError) as raised:
        load_exactly(module, wrong, where="file.pth")
    message = str(raised.value)
    assert "1 missing: bias" in message
    assert "9 unexpected: extra0, extra1, extra2, extra3, ... and 5 more" in message
    assert "1 misshapen: weight (3, 2) instead of (2, 3)" in message
    assert len(message.splitlines()) <= 3
    assert torch.equal(module.weight, torch.ones(2, 3))  # nothing was half loaded
