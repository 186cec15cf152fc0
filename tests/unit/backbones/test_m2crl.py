"""The M2CRL encoder and the files that it comes in."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from qle.backbones import BackboneRequest, build_backbone
from qle.backbones.base import Backbone
from qle.backbones.m2crl_files import expected_shapes, fold_temporal, read_encoder
from qle.errors import CheckpointError, ConfigError
from tests.small_m2crl import M2CRL, m2crl_state

HEADS = {"head.mlp.0.weight": torch.ones(4, 4), "head.last_layer.weight_g": torch.ones(4, 1)}
DECODER = {
    "masked_embed": torch.ones(1, 64),
    "decoder.0.weight": torch.ones(768, 64, 1, 1),
    "decoder.0.bias": torch.ones(768),
}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def pretraining(folder: Path) -> Path:
    """As the official training script writes it: teacher bare, student wrapped, settings and optimiser pickled beside."""
    other = m2crl_state(seed=1)
    content = {
        "student": prefixed(prefixed(other | DECODER, "backbone.") | HEADS, "module."),
        "teacher": prefixed(m2crl_state() | DECODER, "backbone.") | HEADS,
        "motion_student": 0,
        "motion_teacher": 0,
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "params": [0]}]},
        "epoch": 31,
        "args": argparse.Namespace(arch="vit_base", lr=np.float64(5e-4)),
        "fp16_scaler": {"scale": 65536.0},
    }
    torch.save(content, folder / "file")
    return folder / "file"


def endo_fm(folder: Path) -> Path:
    torch.save({"teacher": prefixed(m2crl_state(), "backbone.") | HEADS, "epoch": 3}, folder / "file")
    return folder / "file"


def svt(folder: Path) -> Path:
    torch.save(prefixed(m2crl_state(), "backbone.") | HEADS, folder / "file")
    return folder / "file"


def timesformer(folder: Path) -> Path:
    heads = {"model.head.weight": torch.ones(400, 64), "model.head.bias": torch.ones(400)}
    torch.save(
        {"model_state": prefixed(m2crl_state(), "model.") | heads, "cfg": "..."},
        folder / "file",
        _use_new_zipfile_serialization=False,
    )
    return folder / "file"


def bare_matrix(folder: Path) -> Path:
    state = m2crl_state()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    save_file(state, folder / "file")
    return folder / "file"


def bare_tube(folder: Path) -> Path:
    state = m2crl_state()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, None].contiguous()
    torch.save({"state_dict": state}, folder / "file")
    return folder / "file"


def official_safetensors(folder: Path) -> Path:
    save_file(prefixed(m2crl_state() | DECODER, "backbone."), folder / "file")
    return folder / "file"


LAYOUTS = [pretraining, endo_fm, svt, timesformer, bare_matrix, bare_tube, official_safetensors]


def build(path: Path, **options) -> Backbone:
    return build_backbone(BackboneRequest(name="m2crl", weights=path, device="cpu", compute_dtype="float32", **options))


def clip(side: int = 48, time: int = 4) -> Tensor:
    return torch.randint(
        0, 256, (1, time, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_official_layout_gives_the_same_encoder(tmp_path: Path, write) -> None:
    found = read_encoder(write(tmp_path))
    expected = m2crl_state()
    assert found.config == M2CRL
    assert found.is_video
    assert found.state.keys() == expected.keys() == expected_shapes(M2CRL).keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.items())
    assert found.digest == read_encoder(official_safetensors(tmp_path)).digest


def test_the_real_size_has_the_published_number_of_parameters() -> None:
    real = replace(M2CRL, width=768, depth=12, num_heads=12, mlp_width=3072, grid=14, num_frames=8)
    shapes = expected_shapes(real)
    assert len(shapes) == 247
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 121_258_752


def test_the_student_when_asked_for(tmp_path: Path) -> None:
    found = read_encoder(pretraining(tmp_path), entry="student")
    assert torch.equal(found.state["norm.bias"], m2crl_state(seed=1)["norm.bias"])
    with pytest.raises(CheckpointError, match="no entry 'student'; found 'teacher', 'epoch'"):
        read_encoder(endo_fm(tmp_path), entry="student")


def test_two_dimensional_weights_run_frame_by_frame(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in m2crl_state().items() if "temporal" not in name and name != "time_embed"}
    save_file(state, tmp_path / "dino.safetensors")
    found = read_encoder(tmp_path / "dino.safetensors")
    assert not found.is_video
    assert found.config.num_frames == 8
    assert torch.equal(found.state["blocks.1.temporal_attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])
    assert torch.equal(found.state["blocks.1.temporal_norm1.bias"], state["blocks.1.norm1.bias"])
    whole, single = build(tmp_path / "dino.safetensors"), build(tmp_path / "dino.safetensors", context="single")
    assert whole.provenance()["id"] == "m2crl-2d"
    frames = clip(time=1).expand(1, 8, -1, -1, -1)
    # A clip of one still frame: its CLS token is that of the frame, and so are all patches.
    torch.testing.assert_close(whole.encode(frames)["patch"][:, :1], single.encode(frames[:, :1])["patch"])


def test_folding_the_time_layer_changes_nothing() -> None:
    state = m2crl_state()
    folded = fold_temporal(state, M2CRL.depth)
    assert not [name for name in folded if "temporal_fc" in name]
    tokens = torch.randn(5, 64)
    inner = torch.nn.functional.linear(
        tokens, state["blocks.0.temporal_attn.proj.weight"], state["blocks.0.temporal_attn.proj.bias"]
    )
    outer = torch.nn.functional.linear(inner, state["blocks.0.temporal_fc.weight"], state["blocks.0.temporal_fc.bias"])
    once = torch.nn.functional.linear(
        tokens, folded["blocks.0.temporal_attn.proj.weight"], folded["blocks.0.temporal_attn.proj.bias"]
    )
    torch.testing.assert_close(once, outer, atol=1e-4, rtol=1e-5)


def test_frame_is_the_mean_of_the_patches_and_clip_is_one_vector(tmp_path: Path) -> None:
    streams = build(svt(tmp_path)).encode(clip())
    torch.testing.assert_close(streams["frame"], streams["patch"].mean(dim=(2, 3)))
    assert torch.equal(streams["clip"], streams["clip"][:, :1].expand_as(streams["clip"]))


def test_time_matters_and_pictures_of_another_size_are_taken(tmp_path: Path) -> None:
    path = svt(tmp_path)
    frames = clip()
    backbone = build(path)
    forwards, backwards = backbone.encode(frames)["patch"], backbone.encode(frames.flip(1))["patch"].flip(1)
    assert (forwards - backwards).abs().max() > 1e-2
    larger = build(path, image_size=80)
    assert larger.encode(clip(side=80))["patch"].shape == (1, 4, 5, 5, 64)
    with pytest.raises(ConfigError, match="multiple of the patch size 16"):
        build(path, image_size=50)


@pytest.mark.parametrize(
    ("context", "length", "step"), [(None, 4, 2), ("centre", 4, 2), ("tile", 4, 4), ("single", 1, 1)]
)
def test_contexts(tmp_path: Path, context, length, step) -> None:
    got = build(svt(tmp_path), context=context).context
    assert (got.mode, got.length, got.step) == (context or "centre", length, step)


def test_each_training_keeps_its_own_normalisation(tmp_path: Path) -> None:
    assert build(timesformer(tmp_path)).preprocess.mean == (0.45, 0.45, 0.45)
    assert build(endo_fm(tmp_path)).preprocess.mean == (0.485, 0.456, 0.406)


def test_without_weights_it_says_which_file_to_get() -> None:
    with pytest.raises(ConfigError, match=r"--weights FILE[\s\S]*endo_fm\.pth"):
        build_backbone(BackboneRequest(name="m2crl"))


def test_what_is_missing_unexpected_or_misshapen_is_listed(tmp_path: Path) -> None:
    state = m2crl_state() | {"surprise": torch.ones(3), "norm.bias": torch.ones(5)}
    del state["blocks.1.temporal_fc.weight"]
    save_file(state, tmp_path / "odd")
    with pytest.raises(
        CheckpointError,
        match=r"missing: blocks\.1\.temporal_fc\.weight; 1 unexpected: surprise; 1 misshapen: norm\.bias",
    ):
        build(tmp_path / "odd")


@pytest.mark.parametrize("name", sorted(m2crl_state()))
def test_any_tensor_of_another_shape_is_an_error_of_the_file(tmp_path: Path, name) -> None:
    state = m2crl_state()
    state[name] = torch.ones(3, 7)
    save_file(state, tmp_path / "odd")
    with pytest.raises(CheckpointError, match="odd"):
        build(tmp_path / "odd")


@pytest.mark.parametrize(
    "content", [{"weights": torch.ones(3)}, {"model": {"conv1.weight": torch.ones(3)}}, [1, 2], {"epoch": 3}]
)
def test_another_network_is_recognised_as_such(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: (no M2CRL-type encoder|holds a list)"):
        build(tmp_path / "other.pth")


def test_the_number_of_heads_is_never_guessed_wrongly(tmp_path: Path) -> None:
    narrow = replace(M2CRL, width=48)
    save_file(m2crl_state(narrow), tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="number of heads"):
        build(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="do not divide"):
        build(tmp_path / "narrow", num_heads=5)
    three, four = build(tmp_path / "narrow", num_heads=3), build(tmp_path / "narrow", num_heads=4)
    assert three.provenance() != four.provenance()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_gives_the_same_numbers(tmp_path: Path) -> None:
    state = m2crl_state(
        replace(M2CRL, depth=1)
    )  # every block is compiled alike, and each takes the compiler ten seconds
    torch.save(prefixed(state, "backbone."), tmp_path / "file")
    plain, quick = build(tmp_path / "file"), build(tmp_path / "file", compile=True)
    torch.testing.assert_close(quick.encode(clip())["patch"], plain.encode(clip())["patch"], atol=1e-4, rtol=1e-4)
    assert quick.provenance() == plain.provenance()
