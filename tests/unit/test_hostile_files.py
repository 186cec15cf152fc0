"""Every reader of a file, on files that somebody has damaged or made to do harm: the answer is data or one error of ours.

Bounded and the same every time: each reader gets every nasty text in place of its file, and its own right file with pieces
exchanged, drawn with a seed. A new reader is one line in READ.
"""

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qle.cache.records import CommitRecord, SpaceRecord, read_record
from qle.cache.spaces import create_space
from qle.cache.tools.feature_files import discover_features
from qle.cache.tools.interchange import ImportOptions, import_features
from qle.config import load_preset
from qle.data.annotations import read_annotations
from qle.data.readers import READERS, reader
from qle.data.readers.query_features import read_query_features
from qle.data.readlog import ReadLog
from qle.errors import CheckpointError, InputError, QleError
from qle.eval.submissions.rows import read_rows
from qle.extract.plan import discover
from qle.localize.query_files import read_queries
from qle.runs.record import CONFIG_FILE, METRICS_FILE, read_run
from qle.search.fusion import read_fusion
from qle.train.folder import read_metrics
from tests.dataset_samples import SAMPLES
from tests.tiny_cache import commit_video, tiny_spec

pytestmark = pytest.mark.slow

DEEP = 100_000
NASTY: dict[str, bytes] = {
    "empty": b"",
    "nothing but space": b" \n\r\n\t",
    "lists": b"[" * DEEP,
    "closed lists": b"[" * DEEP + b"]" * DEEP,
    "objects": b'{"a":' * DEEP,
    "deep value": b'{"qid": 1, "vid": "v", "query": ' + b"[" * DEEP + b"]" * DEEP + b"}\n",
    "half of a pair": b'{"qid": "\\ud800", "query": "\\udfff", "vid": "\\ud800", "relevant_windows": []}\n',
    "half of a pair in a key": b'{"\\ud800": {"timestamps": [[0, 1]], "sentences": ["a"], "duration": 2}}',
    "long number": b'{"qid": ' + b"9" * 5000 + b', "query": "a", "vid": "v", "relevant_windows": []}',
    "huge number": b'{"qid": 1, "query": "a", "vid": "v", "duration": 1e999, "relevant_windows": [[0, 1e308]]}',
    "no number": b'{"qid": 1, "query": "a", "vid": "v", "duration": NaN, "relevant_windows": [[0, Infinity]]}',
    "list": b"[1, 2, 3]",
    "text": b'"text"',
    "null": b"null",
    "true": b"true",
    "zero bytes": b"\0" * 1000,
    "bytes": bytes(range(256)) * 4,
    "latin": "video,query,start,end\nop,Schr\u00e4g,1,2\n".encode("latin-1"),
    "utf-16 cut short": "video,query\nop,a\n".encode("utf-16")[:-1],
    "long cell": b'path,query,video,start,end\nx.mp4,"' + b"k" * 140_000,
    "many quotes": b'path\n"' + b'"' * 9999,
    "zip": b"PK\x03\x04" + bytes(200),
}


def _annotations(path: Path) -> Any:
    return read_annotations(path, allow_unlabelled=True, log=ReadLog(skip_bad=True))


def _dataset(name: str, path: Path) -> Any:
    log = ReadLog(skip_bad=True)
    found = reader(name)(path, log)
    log.close(len(found))
    return found


READ: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "annotations": ("rows.jsonl", _annotations),
    "queries": ("queries.jsonl", read_queries),
    "lines of queries": ("queries.txt", read_queries),
    "manifest": ("list.csv", lambda path: discover([str(path)])),
    "predictions": ("predictions.jsonl", read_rows),
    "fusion": ("fusion.json", lambda path: read_fusion(path, {})),
    "preset": ("preset.toml", lambda path: load_preset(str(path))),
    "commit record": ("_COMMIT.json", partial(read_record, CommitRecord)),
    "space record": ("space.json", partial(read_record, SpaceRecord)),
    "run": (CONFIG_FILE, lambda path: read_run(path.parent)),
    "metrics": (METRICS_FILE, lambda path: read_metrics(path.parent)),
    **{name: (f"{name}.json", partial(_dataset, name)) for name in READERS},
}
"""Name of the file and what reads it."""


def _ends_well(read: Callable[[Path], Any], path: Path) -> None:
    """Data, or one of our errors whose message can be shown."""
    message = "data"
    try:
        read(path)
    except QleError as error:
        message = str(error)
    assert message
    assert len(message.encode().splitlines()) <= 4


@pytest.mark.parametrize("name", READ)
def test_whatever_stands_in_its_file_a_reader_ends_with_data_or_one_error(name: str, tmp_path: Path) -> None:
    file, read = READ[name]
    for content in NASTY.values():
        (tmp_path / file).write_bytes(content)
        _ends_well(read, tmp_path / file)


PIECES = (
    *(
        b"\\ud800",
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 400,
        b"[[]]",
        b"{}",
        b'""',
        b"null",
        b"true",
        b'"',
        b",",
        b";",
        b"\n",
    ),
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"[" * 2000, b"1,5", b"\x1b[2J", b"../../x", b"s3://b/x"),
)


@pytest.mark.parametrize("name", SAMPLES)
def test_pieces_of_a_right_file_exchanged_are_data_or_one_error(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    path, options = sample.write(tmp_path)
    right, draw = path.read_bytes(), random.Random(name)
    for _ in range(60):
        content = right
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(content) + 1)
            content = content[:start] + draw.choice(PIECES) + content[start + draw.randint(0, 12) :]
        path.write_bytes(content)
        _ends_well(lambda path: reader(sample.reader)(path, ReadLog(skip_bad=draw.random() < 0.5), **options), path)


@pytest.mark.parametrize("record", ["space.json", "_COMMIT.json", "qle-cache.json"])
def test_a_pipe_in_place_of_a_record_is_an_error_and_no_wait(record: str, tmp_path: Path) -> None:
    from qle.cache.tools.verify import verify

    commit_video(create_space(tmp_path, tiny_spec()), "a.mp4")
    (path,) = tmp_path.rglob(record)
    path.unlink()
    os.mkfifo(path)
    with suppress(QleError):
        assert verify(tmp_path).findings


ARRAYS: dict[str, Callable[[Path], None]] = {
    "no columns": lambda path: np.save(path, np.zeros((5, 0), np.float32)),
    "no rows": lambda path: np.save(path, np.zeros((0, 4), np.float32)),
    "a truth value": lambda path: _npy(path, "(True, 4)", 64),
    "a negative size": lambda path: _npy(path, "(-5, 4)", 64),
    "more than there is": lambda path: _npy(path, "(1000000000000, 4)", 64),
    "a text": lambda path: _npy(path, "'ab'", 64),
    "a number": lambda path: np.save(path, np.float32(3)),
    "objects": lambda path: np.save(path, np.array([[object()]]), allow_pickle=True),
    "nested": lambda path: _npy(path, "(" * 300 + ")" * 300, 64),
}


def _npy(path: Path, shape: str, num_bytes: int) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    header = (text + " " * (-(len(text) + 11) % 64) + "\n").encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(num_bytes))


@pytest.mark.parametrize("form", ["npy", "npz"])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_no_possible_shape_is_left_out_and_named(name: str, form: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    np.save(files / "good.npy", np.ones((5, 4), np.float32))
    ARRAYS[name](files / "bad.npy")
    if form == "npz":
        with zipfile.ZipFile(files / "bad.npz", "w") as archive:
            archive.write(files / "bad.npy", "features.npy")
        (files / "bad.npy").unlink()
    report = import_features([files], tmp_path / "cache", ImportOptions(name="x", clip_length_s=2.0))
    assert (report.num_imported, list(report.failed)) == (1, ["bad"])


def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    """3 GB of zeros in a few kilobytes; nothing of it is unpacked but its first kilobyte."""
    files = tmp_path / "files"
    files.mkdir()
    np.save(files / "good.npy", np.ones((5, 1000), np.float32))
    _bomb(files / "bomb.npz", "features")
    report = import_features([files], tmp_path / "cache", ImportOptions(name="x", clip_length_s=2.0))
    assert list(report.failed) == ["bomb"]
    assert "would unpack to 3,000,000,128: damaged, or made to fill the memory" in report.failed["bomb"]
    _bomb(files / "1.npz", "last_hidden_state")
    (tmp_path / "rows.jsonl").write_text('{"qid": 1, "query": "a", "vid": "v", "relevant_windows": []}\n')
    with pytest.raises(InputError, match="made to fill the memory"):
        read_query_features(files, read_annotations(tmp_path / "rows.jsonl"))


def _bomb(path: Path, name: str) -> None:
    """An archive whose directory says what a bomb's would: how much comes out of how little."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (750_000, 1000)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", header.getvalue() + bytes(3_000_000))
    content = bytearray(path.read_bytes())
    size = content.index(b"PK\x01\x02") + 24
    content[size : size + 4] = (3_000_000_128).to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    "metrics", [[], {}, {"selection": []}, {"selection": {"step": 1, "steps": 2}}, {"selection": {"val_auroc": 1}}, 3],
    ids=str,
)  # fmt: skip
def test_a_finished_run_whose_metrics_say_something_else_is_damaged(metrics: Any, tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text(json.dumps(metrics))
    with pytest.raises(CheckpointError, match="not what validation said"):
        read_metrics(tmp_path)


def test_json_is_read_in_one_place() -> None:
    """Everything else would have to remember depth, halves of characters and size."""
    import qle

    own = {
        "inputs.py",  # the place itself
        "cache/files/zarr_store.py", "tasks/evaluation.py",  # what they have just made themselves
        "children.py", "train/seeds.py",  # programs that are handed to a process as text
        "data/readers/json_items.py",  # entry by entry, with the line of each
    }  # fmt: skip
    package = Path(qle.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(call in path.read_text() for call in ("json.load", "JSONDecoder("))
    }
    assert found <= own


def test_every_form_of_features_is_discovered(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(NASTY["zip"])
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.h5")
    assert [entry.key for entry in discover_features([tmp_path])] == ["a", "b"]
