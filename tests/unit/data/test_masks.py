"""Masks come back as they were, and a reference from a stranger's file leads nowhere else."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from qle.data.masks import MaskTrack, read_masks, write_masks
from qle.errors import AnnotationError


def _track(rng: np.random.Generator, count: int, height: int, width: int) -> MaskTrack:
    return MaskTrack(times_s=np.arange(count) * 0.25, masks=rng.random((count, height, width)) < 0.3)


@pytest.mark.parametrize("shape", [(3, 56, 56), (1, 5, 3), (0, 8, 8)])
def test_masks_come_back(tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    track, other = _track(rng, *shape), _track(rng, 2, 7, 9)
    write_masks(tmp_path / "masks" / "a.npz", {"green_polyp": track, "jet": other})
    for name, written in (("green_polyp", track), ("jet", other)):
        found = read_masks(tmp_path / "x.jsonl", f"masks/a.npz:{name}")
        assert np.array_equal(found.times_s, written.times_s)
        assert np.array_equal(found.masks, written.masks)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    "reference",
    [
        *("../a.npz:jet", "m/../../a.npz:jet", "/a.npz:jet", "c:a.npz:jet", "m\\a.npz:jet", "a\0.npz:jet"),
        *("a.npz", "", ":jet", "a.npz:", "a.npz:../jet"),
    ],
)
def test_references_stay_below_the_annotation_file(tmp_path: Path, rng: np.random.Generator, reference: str) -> None:
    write_masks(tmp_path / "a.npz", {"jet": _track(rng, 1, 4, 4)})
    (tmp_path / "folder").mkdir()
    with pytest.raises(AnnotationError, match="expected folder/file"):
        read_masks(tmp_path / "folder" / "x.jsonl", reference)


def test_a_link_that_leads_out_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    write_masks(tmp_path / "a.npz", {"jet": _track(rng, 1, 4, 4)})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.npz").symlink_to(tmp_path / "a.npz")
    with pytest.raises(AnnotationError, match="lead out"):
        read_masks(tmp_path / "folder" / "x.jsonl", "a.npz:jet")


def test_hostile_files_are_one_clear_error(tmp_path: Path, rng: np.random.Generator) -> None:
    good = tmp_path / "good.npz"
    write_masks(good, {"jet": _track(rng, 2, 8, 8)})
    bits, times_s, shape = np.zeros((2, 8), np.uint8), np.arange(2.0), np.array([2, 8, 8])
    (tmp_path / "torn.npz").write_bytes(good.read_bytes()[:-30])
    np.savez(
        tmp_path / "pickled.npz", **{"jet.times_s": times_s, "jet.shape": np.array([{}], object), "jet.bits": bits}
    )
    np.savez(tmp_path / "short.npz", **{"jet.times_s": times_s, "jet.shape": shape * 3, "jet.bits": bits})
    np.savez(tmp_path / "odd.npz", **{"jet.times_s": times_s, "jet.shape": np.array([2.5]), "jet.bits": bits})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as huge:  # 73 TiB, by its header
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
        for part in ("times_s", "shape", "bits"):
            huge.writestr(f"jet.{part}.npy", header.getvalue())
    np.savez(tmp_path / "back.npz", **{"jet.times_s": -times_s, "jet.shape": shape, "jet.bits": bits})
    for name, reason in [
        ("torn", "not a readable"), ("pickled", "not a readable"), ("short", "do not hold"), ("odd", "expected times"),
        ("back", "increase"), ("gone", "no such file"), ("huge", "not a readable"),
    ]:  # fmt: skip
        with pytest.raises(AnnotationError, match=reason):
            read_masks(tmp_path / "x.jsonl", f"{name}.npz:jet")
    with pytest.raises(AnnotationError, match="it has: jet"):
        read_masks(tmp_path / "x.jsonl", "good.npz:polyp")


def test_flipped_bits_are_one_clear_error_or_nothing_at_all(tmp_path: Path, rng: np.random.Generator) -> None:
    """Also where they make the packed stream itself impossible: zlib then fails in its own words."""
    write_masks(tmp_path / "good.npz", {"jet": _track(rng, 20, 32, 32)})
    whole = (tmp_path / "good.npz").read_bytes()
    begin, causes = whole.index(b"jet.bits.npy") + len("jet.bits.npy"), set()
    for place in range(begin, begin + 40):
        (tmp_path / "bad.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 7]) + whole[place + 1 :])
        try:
            read_masks(tmp_path / "x.jsonl", "bad.npz:jet")
        except AnnotationError as error:
            causes.add(type(error.__cause__))
    assert zlib.error in causes


def test_what_is_no_track_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="bool masks"):
        MaskTrack(times_s=np.zeros(1), masks=np.zeros((1, 4, 4)))
    with pytest.raises(AnnotationError, match="letters"):
        write_masks(tmp_path / "a.npz", {"a.b": MaskTrack(times_s=np.zeros(1), masks=np.zeros((1, 4, 4), bool))})
    assert not list(tmp_path.iterdir())
