"""What every reader of a dataset and the writer of its format promise together, on small made-up files."""

import dataclasses
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qle.data.annotations import Annotation, read_annotations, write_annotations
from qle.data.readers import READERS, reader
from qle.data.readlog import ReadLog
from qle.data.writers import WRITERS, writer
from qle.data.writers.export import export
from qle.errors import AnnotationError, ConfigError, QleError
from tests.dataset_samples import SAMPLES, Sample

SURGICAL = {"intervals", "triplets", "cholec80", "cholect50"}
"""Readers with tests of their own only."""
samples = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


def facts(annotations: list[Annotation], without: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """All that they say, comparable: arrays as lists, NaN as None."""
    return [
        {
            field.name: value.tolist() if isinstance(value := getattr(one, field.name), np.ndarray) else value
            for field in dataclasses.fields(one)
            if field.name not in without
        }
        for one in annotations
    ]


def comparable(annotations: list[Annotation], without: frozenset[str] = frozenset()) -> str:
    return repr(facts(annotations, without))  # NaN equals itself there


def read(sample: Sample, folder: Path, log: ReadLog | None = None) -> list[Annotation]:
    path, options = sample.write(folder)
    annotations: list[Annotation] = reader(sample.reader)(path, log or ReadLog(), **options)
    return annotations


def test_every_reader_has_a_sample() -> None:
    assert {sample.reader for sample in SAMPLES.values()} == set(READERS) - SURGICAL
    assert {sample.writer for sample in SAMPLES.values()} | {"qvhighlights-submission", None} == {*WRITERS, None}


@samples
def test_everything_is_read(sample: Sample, tmp_path: Path) -> None:
    annotations = read(sample, tmp_path)
    assert len(annotations) == sample.num_annotations
    assert len({one.qid for one in annotations}) == len(annotations)
    assert not any(".avi" in one.video or "/" in one.video for one in annotations)


@samples
def test_what_was_read_survives_the_neutral_file(sample: Sample, tmp_path: Path) -> None:
    annotations = read(sample, tmp_path)
    write_annotations(tmp_path / "neutral.jsonl", annotations)
    back = read_annotations(tmp_path / "neutral.jsonl", allow_unlabelled=True)
    assert comparable(back) == comparable(annotations)


@samples
def test_read_write_read(sample: Sample, tmp_path: Path) -> None:
    if sample.writer is None:
        pytest.skip("nobody needs this format back")
    annotations = read(sample, tmp_path)
    out = tmp_path / "back" / sample.name
    written = export(out, annotations, sample.writer)
    options: dict[str, Any] = dict(sample.options)
    if sample.writer == "charades-sta":
        options["durations"] = written.paths[1]
    # MSR-VTT's lists come back as one table with captions.
    back = reader(sample.reader)(out, ReadLog(), **options)
    assert comparable(back, sample.loses) == comparable(annotations, sample.loses)
    assert bool(written.notes) == ("split" in sample.loses)
    again = writer(sample.writer)(out, back, ReadLog())
    assert {path: path.read_bytes() for path in written.paths} == again


@samples
def test_an_empty_file_is_one_clear_error(sample: Sample, tmp_path: Path) -> None:
    path, options = sample.write(tmp_path)
    for content in (b"", b"\n\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(QleError, match=re.escape(str(path))) as caught:
            reader(sample.reader)(path, ReadLog(), **options)
        assert len(str(caught.value).splitlines()) <= 3


@samples
def test_a_missing_file_is_one_clear_error(sample: Sample, tmp_path: Path) -> None:
    _, options = sample.write(tmp_path)
    with pytest.raises(QleError, match=r"gone\.x.*No such file"):
        reader(sample.reader)(tmp_path / "gone.x", ReadLog(), **options)


@samples
def test_names_that_lead_out_of_a_folder_are_refused(sample: Sample, tmp_path: Path) -> None:
    """Ids of files become keys and names of files elsewhere."""
    video = read(sample, tmp_path)[0].video
    for name in ("../../etc/passwd", "/etc/passwd"):
        changed = sample.content.replace(video, name)
        if sample.reader == "didemo":  # only the last part of its paths counts, so nothing leads out
            assert all("/" not in one.video for one in read(dataclasses.replace(sample, content=changed), tmp_path))
            continue
        extra = sample.extra and (*sample.extra[:2], sample.extra[2].replace(video, name))
        with pytest.raises(AnnotationError, match=r"line \d+, .*expected a name below the folder of the videos, got"):
            read(dataclasses.replace(sample, content=changed, extra=extra), tmp_path)


DAMAGE = (
    b"NaN", b"null", b"-1", b"1e999", b"{}", b"[]", b'"', b"\\ud800", b"\x00", b"\xff", b",", b"\n", b"[", b"}", b"..", b"/",
    b"true", b"\r", b"9" * 20, b"tensor([[", b"##", b'""', b"",
)  # fmt: skip


@samples
def test_damaged_files_are_read_or_refused(sample: Sample, tmp_path: Path) -> None:
    """Whatever stands in a file: annotations, or one error of at most three lines; never anything else."""
    rng = random.Random(0)
    path, options = sample.write(tmp_path)
    whole = path.read_bytes()
    errors: list[str] = []
    for _ in range(60):
        at = rng.randrange(len(whole))
        path.write_bytes(whole[:at] + rng.choice(DAMAGE) + whole[at + rng.choice((0, 1, 5)) :])
        try:
            reader(sample.reader)(path, ReadLog(skip_bad=rng.random() < 0.3), **options)
        except QleError as error:
            errors.append(str(error))
    assert errors, "some of the damage is always noticed"
    assert max(len(error.splitlines()) for error in errors) <= 3


@pytest.mark.parametrize("name", WRITERS)
def test_writers_replace_nothing_and_leave_nothing_half(name: str, tmp_path: Path) -> None:
    annotation = Annotation(
        qid="3", video="video1", query="a cat", windows=((0.0, 2.0),), duration_s=4.0, clip_s=2.0,
        saliency=np.array([[1.0], [2.0]], dtype=np.float32),
    )  # fmt: skip
    out = tmp_path / "out.txt"
    written = export(out, [annotation], name)
    assert out in written.paths
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == set(written.paths)
    with pytest.raises(ConfigError, match=r"would be replaced\nadd --overwrite"):
        export(out, [annotation], name)
    export(out, [annotation], name, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_formats_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--to mad: choose one of qvhighlights, "):
        export(tmp_path / "out", [], "mad")
