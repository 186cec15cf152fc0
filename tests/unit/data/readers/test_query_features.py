"""Published features of queries: every form of file, qids that share a text, and what is missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qle.data.annotations import Annotation
from qle.data.readers.query_features import read_features, read_query_features
from qle.errors import InputError

STATES = np.arange(12, dtype=np.float32).reshape(3, 4)
POOLED = np.arange(4, dtype=np.float32)


def ask(qid: str, query: str) -> Annotation:
    return Annotation(qid=qid, video="a", query=query, windows=((0.0, 1.0),))


def save(folder: Path, name: str, states: np.ndarray = STATES) -> Path:
    path = folder / name
    if path.suffix == ".npz":
        np.savez(path, last_hidden_state=states, pooler_output=POOLED)
    elif path.suffix == ".npy":
        np.save(path, states)
    else:
        import torch

        tensors = {"last_hidden_state": torch.from_numpy(states)[None].bfloat16(), "pooler_output": torch.ones(1, 4)}
        torch.save(tensors if path.stem == "qid3" else torch.from_numpy(states), path)
    return path


def test_every_form_of_file(tmp_path: Path) -> None:
    for name in ("qid1.npz", "2.npy", "qid3.pt", "4.pth", "notes.txt"):
        save(tmp_path, name) if name != "notes.txt" else (tmp_path / name).write_text("no features")
    queries = [ask(str(number), f"query  {number}") for number in range(1, 5)]
    seen: list[str] = []
    found = read_query_features(
        tmp_path, queries, on_progress=lambda done, total, name: seen.append(f"{done}/{total} {name}")
    )
    assert list(found.queries) == ["query 1", "query 2", "query 3", "query 4"]
    for states, _ in found.queries.values():
        np.testing.assert_array_equal(states, STATES)
    assert [None if pooled is None else pooled.shape for _, pooled in found.queries.values()] == [
        (4,),
        None,
        (4,),
        None,
    ]
    assert seen[0] == "1/4 qid1.npz"
    assert found.notes == []


def test_one_text_with_several_qids(tmp_path: Path) -> None:
    save(tmp_path, "qid1.npz")
    save(tmp_path, "qid2.npz", STATES + 1e-4)
    save(tmp_path, "qid3.npz", STATES[:2])
    save(tmp_path, "qid4.npz", STATES + 1)
    found = read_query_features(tmp_path, [ask(qid, "a polyp") for qid in "1234"])
    np.testing.assert_array_equal(found.queries["a polyp"][0], STATES)
    (note,) = found.notes
    assert note.startswith("2 qids ask in the same words as an earlier one and have other features")
    assert note.endswith(": 3, 4")


def test_half_precision_stays(tmp_path: Path) -> None:
    save(tmp_path, "qid1.npz", STATES.astype(np.float16))
    save(tmp_path, "qid2.npy", STATES.astype(np.float64))
    assert read_features(tmp_path / "qid1.npz")[0].dtype == np.float16
    assert read_features(tmp_path / "qid2.npy")[0].dtype == np.float32


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    save(tmp_path, "qid1.npz")
    queries = [ask("1", "a"), *(ask(str(number), f"b {number}") for number in range(2, 9))]
    with pytest.raises(
        InputError, match=r"no file for 7 of 8 qids \(2, 3, 4, 5, \.\.\. and 3 more\), e\.g\. qid2\.npz"
    ):
        read_query_features(tmp_path, queries)
    found = read_query_features(tmp_path, queries, allow_missing=True)
    assert list(found.queries) == ["a"]
    assert found.notes == ["7 qids have no features and are left out: 2, 3, 4, 5, ... and 3 more"]
    with pytest.raises(InputError, match="no file for 1 of 1"):
        read_query_features(tmp_path, queries[1:2], allow_missing=True)


def test_folders_and_files_that_hold_no_features(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_query_features(tmp_path / "none", [ask("1", "a")])
    with pytest.raises(InputError, match="no files of query features"):
        read_query_features(tmp_path, [ask("1", "a")])
    np.savez(tmp_path / "qid1.npz", features=STATES)
    np.save(tmp_path / "qid2.npy", STATES[0])
    (tmp_path / "qid3.npz").write_bytes(b"PK\x03\x04 cut")
    np.save(tmp_path / "qid4.npy", np.array(["a"], dtype=object), allow_pickle=True)
    for qid, message in (
        ("1", "no array 'last_hidden_state' in it, only features"),
        ("2", r"expected 2 axes of numbers, got float32 \(4,\)"),
        ("3", "features cannot be read"),
        ("4", "features cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            read_query_features(tmp_path, [ask(qid, "a")])


def _tear(path: Path) -> None:
    """Zeros in the middle: the packed header ends too early."""
    np.savez_compressed(path, last_hidden_state=np.random.default_rng(0).random((50, 80), dtype=np.float32))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def _flip(path: Path) -> None:
    """A block of the packed numbers that no packer writes."""
    np.savez_compressed(path, last_hidden_state=np.zeros((50, 80), np.float32))
    content = bytearray(path.read_bytes())
    place = content.index(b"last_hidden_state.npy") + len(b"last_hidden_state.npy")
    content[place : place + 60] = b"\xff" * 60
    path.write_bytes(content)


def _promise(path: Path) -> None:
    """A header of a file of terabytes."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 8), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


@pytest.mark.parametrize(("name", "damage"), [("qid1.npz", _tear), ("qid1.npz", _flip), ("qid1.npy", _promise)])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: features cannot be read \(.*\)\nfetch the file again"):
        read_features(tmp_path / name)
