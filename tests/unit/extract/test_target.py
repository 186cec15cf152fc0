"""Names of spaces: two models of one family are told apart by them, and a cache keeps the names that it has."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from qle.backbones import BackboneRequest, build_backbone
from qle.cache.layout import space_folder_name
from qle.cache.spaces import create_space
from qle.extract.request import TokenOptions
from qle.extract.sampling import Sampling
from qle.extract.target import make_target, space_spec
from qle.types import SpaceSpec
from tests.small_m2crl import m2crl_file
from tests.small_models import clip_folder

pytestmark = pytest.mark.slow

HOW = (Sampling(mode="fps", fps=1.0), TokenOptions())


def _spec(name: str | Path, weights: Path | None = None) -> SpaceSpec:
    return space_spec(build_backbone(BackboneRequest(name=str(name), weights=weights, device="cpu")), *HOW)


def _trained_on(file: Path) -> None:
    """Other weights of the same shapes, as after more training."""
    save_file({name: tensor + 0.01 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.fixture
def two_clips(tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints of one architecture, in folders of one name."""
    first, second = (clip_folder(tmp_path / run / "clip_small") for run in ("first", "second"))
    _trained_on(second / "model.safetensors")
    return first, second


def test_two_models_of_one_family_have_names_that_differ_before_the_hash(tmp_path: Path, two_clips) -> None:
    first, second = two_clips
    renamed = first.rename(tmp_path / "endo@clip.v2")
    specs = [_spec(second), _spec(renamed), _spec("m2crl", m2crl_file(tmp_path))]
    names = [spec.name for spec in specs]
    digests = [str(spec.hashed["backbone"]["weights"])[:6] for spec in specs]
    assert names == [
        f"clip-small-{digests[0]}-1fps-single-patch-float16",
        f"endo-clip-v2-{digests[1]}-1fps-single-patch-float16",
        f"m2crl-{digests[2]}-1fps-centre-patch-float16",
    ]


def test_checkpoints_in_files_of_one_name_differ_too(two_clips) -> None:
    first, second = (_spec(folder).name for folder in two_clips)
    assert first != second
    assert first.startswith("clip-small-")
    assert second.startswith("clip-small-")


def test_the_built_in_backbone_is_called_as_ever() -> None:
    assert _spec("tiny").name == "tiny-1fps-single-patch-float16"


def test_a_cache_of_an_earlier_version_goes_on_under_its_own_name(tmp_path: Path, two_clips) -> None:
    backbone = build_backbone(BackboneRequest(name=str(two_clips[0]), device="cpu"))
    old = replace(space_spec(backbone, *HOW), name="clip-1fps-single-patch-float16")
    there = create_space(tmp_path / "cache", old)
    target = make_target(backbone, *HOW, tmp_path / "cache")
    assert target.folder.path == there.path
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [space_folder_name(old)]
