"""Whatever bytes stand in a file that qle reads: what it says, or one error of at most three lines, and never anything else.

a whole file of each kind -> damage drawn by hypothesis -> the reader of that kind -> a value | QleError
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qle.cache.index import load_index
from qle.cache.reader import open_cache
from qle.cache.spaces import create_space
from qle.cache.tools.feature_files import discover_features, peek_features, read_features
from qle.cli.cache.exchange import load_tensors
from qle.data.annotations import read_annotations
from qle.data.masks import MaskTrack, read_masks, write_masks
from qle.data.readers import reader
from qle.data.readlog import ReadLog
from qle.errors import QleError
from qle.eval.submissions.rows import read_rows
from qle.extract.plan import discover
from qle.localize.query_files import read_queries
from qle.runs.record import read_run
from qle.search.fusion import Fusion, read_fusion, write_fusion
from qle.text.vectors import open_vectors
from qle.text.words_file import StoredQueries, write_stored_words
from qle.train.steps.checkpoints import Checkpoint, CheckpointFolder, Position
from qle.weights import load_file
from tests.dataset_samples import SAMPLES
from tests.planted import planted_cache
from tests.tiny_cache import KEY, commit_video, tiny_spec

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = (
    b"NaN", b"null", b"-1", b"1e999", b"{}", b"[]", b'"', b"\\ud800", b"\x00", b"\xff", b",", b"\n", b"[" * 2000, b"}", b"../",
    b"true", b"\r", b"9" * 20, b"tensor([[", b"##", b'""', b"\x1b[2J", b"1000000000000", b"-9223372036854775808", b"\xef\xbb\xbf",
    b'"a": {"a": 1}, ', b"x" * 200_000,
)  # fmt: skip
"""What readers of text and of JSON may stumble over."""


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    make: Callable[[Path], Path]
    """A whole one below a folder; its path comes back."""
    read: Callable[[Path], Any]
    """All of what it says, as a command would need it."""


def whole_cache(store: str, name: str) -> Kind:
    """One file of a small cache; the first that fits, in its own folder."""

    def make(folder: Path) -> Path:
        space = create_space(folder / "cache", tiny_spec())
        commit_video(space, store=store, num_rows=40)  # type: ignore[arg-type]
        load_index(space)  # which writes it
        return next(path for path in sorted((folder / "cache").rglob(name)) if path.is_file())

    def read(path: Path) -> None:
        root = next(parent for parent in path.parents if parent.name == "cache")
        video = open_cache(root).space().video(KEY)
        assert video.patch[:].shape[0] == len(video.pts)

    return Kind(make, read)


def made(name: str, write: Callable[[Path], Any], read: Callable[[Path], Any]) -> Kind:
    """A file of that name, written by `write`."""

    def make(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return Kind(make, read)


def dataset(name: str) -> Kind:
    sample = SAMPLES[name]

    def make(folder: Path) -> Path:
        return sample.write(folder)[0]

    def read(path: Path) -> None:
        options = dict(sample.options) | ({sample.extra[0]: path.parent / sample.extra[1]} if sample.extra else {})
        reader(sample.reader)(path, ReadLog(), **options)

    return Kind(make, read)


def run_folder(folder: Path) -> Path:
    from tests.e2e.test_localize import make_run

    make_run(folder / "run", open_cache(planted_cache(folder).cache).space())
    return folder / "run" / "config.json"


def checkpoint(name: str) -> Kind:
    def make(folder: Path) -> Path:
        tensors = {"weights": {"a": torch.ones(3)}}
        CheckpointFolder(folder / "steps").write(Checkpoint(position=Position(step=3), tensors=tensors))
        return next((folder / "steps").rglob(name))

    return Kind(make, lambda path: CheckpointFolder(path.parents[1]).newest())


def features(path: Path) -> None:
    for entry in discover_features([path]):
        peek_features(entry)
        read_features(entry, load_tensors=load_tensors)


def write_manifest(path: Path) -> None:
    path.write_text("path,key,start,end\na.mp4,a,0,1\nb.mp4,b,1.5,9\n")
    for name in ("a.mp4", "b.mp4"):
        path.with_name(name).touch()


def write_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = np.ones((4, 3), np.float32)


def write_mask_files(path: Path) -> None:
    write_masks(path, {"a": MaskTrack(times_s=np.arange(3.0), masks=np.ones((3, 4, 5), bool))})


def every_vector(path: Path) -> None:
    vectors = open_vectors(path)
    for word in vectors.at:
        vectors.vector(word)


def stored_words(path: Path) -> None:
    queries = StoredQueries(path)
    for text in queries.texts():
        queries.query(text)
    queries.witnesses()


VALUES = np.ones((4, 3), np.float32)
FITTED = Fusion(weight=0.5, temperature=0.1, fitted={"runs": {"retriever": "a"}})
SAID = {"qid": 1, "pred_relevant_windows": [[60, 140, 0.9]], "pred_saliency_scores": [-1.0, 2.0]}
QUERY = {"a polyp": (np.ones((2, 3)), np.ones(3))}

KINDS: dict[str, Kind] = {
    **{f"dataset {name}": dataset(name) for name in SAMPLES},
    "intervals": made("a.csv", lambda path: path.write_text("video,query,start,end\n" + "a.mp4,smoke,1,2\n" * 3),
                      lambda path: reader("intervals")(path, ReadLog())),
    "annotations": Kind(lambda folder: planted_cache(folder).train, read_annotations),
    "manifest": made("list.csv", write_manifest, lambda path: discover([str(path)])),
    "queries": made("a.txt", lambda path: path.write_text("smoke\na polyp\n"), read_queries),
    "queries jsonl": made("a.jsonl", lambda path: path.write_text('{"query": "smoke", "video": "a"}\n'), read_queries),
    "predictions": made("a.jsonl", lambda path: path.write_text(json.dumps(SAID) + "\n"), read_rows),
    "run": Kind(run_folder, lambda path: read_run(path.parent)),
    "cache record": whole_cache("zarr", "qle-cache.json"),
    "space record": whole_cache("zarr", "space.json"),
    "commit record": whole_cache("zarr", "_COMMIT.json"),
    "index": whole_cache("zarr", "index.parquet"),
    "zarr metadata": whole_cache("zarr", "zarr.json"),
    "commit record hdf5": whole_cache("hdf5", "_COMMIT.json"),
    "hdf5 store": whole_cache("hdf5", "*.h5"),
    "npy": made("a.npy", lambda path: np.save(path, VALUES), features),
    "npz": made("a.npz", lambda path: np.savez_compressed(path, features=VALUES, pts=np.arange(4.0)), features),
    "h5": made("a.h5", write_h5, features),
    "pt": made("a.pt", lambda path: torch.save(torch.ones(4, 3), path), features),
    "weights pt": made("a.ckpt", lambda path: torch.save({"model": {"a": torch.ones(2)}}, path), load_file),
    "weights safetensors": made("a.safetensors", lambda path: save_file({"a": VALUES}, path), load_file),
    "words": made("a.safetensors", lambda path: write_stored_words(path, QUERY), stored_words),
    "word vectors": made("a.txt", lambda path: path.write_text("a 0.1 0.2\npolyp 0.3 0.4\n"), every_vector),
    "masks": made("a.masks.npz", write_mask_files, lambda path: read_masks(path.parent / "x.jsonl", f"{path.name}:a")),
    "fusion": made("a.json", lambda path: write_fusion(path, FITTED), lambda path: read_fusion(path, {"retriever": "a"})),
    "checkpoint": checkpoint("state.json"),
    "checkpoint weights": checkpoint("weights.safetensors"),
}  # fmt: skip


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """One to three pieces: where (as a share of the file), how many bytes go, what comes in their place."""
    piece = st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=4))
    cut = st.one_of(st.sampled_from([0, 1, 5]), st.integers(0, 1 << 20))
    return draw(st.lists(st.tuples(st.floats(0, 1), cut, piece), min_size=1, max_size=3))


def damaged(whole: bytes, pieces: list[tuple[float, int, bytes]]) -> bytes:
    for share, cut, piece in pieces:
        at = int(share * len(whole))
        whole = whole[:at] + piece + whole[at + cut :]
    return whole


def refusal(read: Callable[[], Any]) -> str:
    """What a reader says of a file that it does not take; empty where it reads it."""
    try:
        read()
    except QleError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("examples", [15, pytest.param(300, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused(name: str, examples: int, tmp_path: Path) -> None:
    path = KINDS[name].make(tmp_path)
    whole = path.read_bytes()
    KINDS[name].read(path)

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(damages())
    def is_one_error(pieces: list[tuple[float, int, bytes]]) -> None:
        path.write_bytes(damaged(whole, pieces))
        error = refusal(lambda: KINDS[name].read(path))
        assert len(error.splitlines()) <= 3, error

    is_one_error()
