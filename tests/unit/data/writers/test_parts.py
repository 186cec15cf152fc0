"""Annotation files of a dataset: all parts or none, and nothing replaced unasked."""

from pathlib import Path

import pytest

from qle.data.annotations import Annotation, read_annotations
from qle.data.writers.parts import parts_of, write_parts
from qle.errors import ConfigError, InputError


def one(qid: str, split: str, *windows: tuple[float, float], duration_s: float | None = 1800.0) -> Annotation:
    return Annotation(qid=qid, video=f"v{qid}", query="q", windows=windows, split=split, duration_s=duration_s)


@pytest.fixture
def parts() -> dict[str, list[Annotation]]:
    annotations = [one("1", "test", (0, 1), (2, 3)), one("2", "train"), one("3", "train", (0, 1), duration_s=None)]
    return parts_of(annotations, lambda annotation: annotation.split)


def test_counts(tmp_path: Path, parts: dict[str, list[Annotation]]) -> None:
    train, test = write_parts(tmp_path / "new" / "folder", parts)
    assert (train.path.name, train.num_videos, train.num_annotations, train.num_absent) == ("train.jsonl", 2, 2, 1)
    assert (train.hours, test.hours) == (None, 0.5)
    assert (test.num_windows, test.num_absent, test.num_queries, test.num_unlabelled) == (2, 0, 1, 0)
    assert read_annotations(test.path) == parts["test"]


def test_nothing_is_replaced_unasked_and_then_all(tmp_path: Path, parts: dict[str, list[Annotation]]) -> None:
    (tmp_path / "test.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"test\.jsonl would be replaced\nadd --overwrite"):
        write_parts(tmp_path, parts)
    assert [path.name for path in tmp_path.iterdir()] == ["test.jsonl"]
    assert (tmp_path / "test.jsonl").read_text() == "mine"
    write_parts(tmp_path, parts, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl"]


def test_one_file_for_one_part(tmp_path: Path, parts: dict[str, list[Annotation]]) -> None:
    with pytest.raises(ConfigError, match=r"is one file, and there are 2 parts \(train, test\): name a folder"):
        write_parts(tmp_path / "all.jsonl", parts)
    (written,) = write_parts(tmp_path / "all.jsonl", {"": parts["test"], "val": []})
    assert written.path == tmp_path / "all.jsonl"


def test_names_of_splits_stay_in_the_folder(tmp_path: Path) -> None:
    for name in ("../up", "a/b", ".hidden", "a b"):
        with pytest.raises(InputError, match="expected letters, digits"):
            write_parts(tmp_path, {name: [one("1", name)]})
    with pytest.raises(InputError, match="no annotations for"):
        write_parts(tmp_path, {"val": []})
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make folder"):
        write_parts(tmp_path / "file" / "below", {"val": [one("1", "val")]})
