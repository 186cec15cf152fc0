"""Official files to runs and back: safe, complete, bound or not."""

import argparse
import functools
import json
import pickle
import random
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save_file
from torch import Tensor

from qle.cache.tools.interchange import ImportOptions, import_features
from qle.compat import UPSTREAMS
from qle.compat.convert import IMPORTING, ImportRequest, export_checkpoint, import_checkpoint
from qle.errors import CheckpointError, ConfigError
from qle.runs.load import load_head, load_run
from qle.runs.record import read_run
from qle.weights import load_file
from tests.other_collections.moments import official_head
from tests.other_collections.retrieval import official_tmass

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

CLIP_DIMS = (20, 12)
"""Widths of two streams, to which an official head adds the two endpoints of each clip."""
TEXT_DIM = 24
OPTIONS = {"nheads": 4, "num_prompts": 2, "dropout": 0.2, "lw_saliency": 3.0, "num_mha_heads": 2}


@functools.cache
def official_weights(upstream: str) -> dict[str, Tensor]:
    """Random ones, under the names and in the shapes of the official program."""
    draw = random.Random(upstream)
    torch.manual_seed(0)
    if upstream == "tmass":
        head = official_tmass(draw, dim=TEXT_DIM, num_heads=OPTIONS["num_mha_heads"])
    else:
        sizes = {"num_heads": OPTIONS["nheads"], "dim": 8 * OPTIONS["nheads"]}
        own = {"cg-detr": {"kept_prompts": OPTIONS["num_prompts"]}, "mesm": {"enhances": True, "word_weight": 0.5}}
        options = sizes | own.get(upstream, {})
        head = official_head(upstream, draw, clip_dim=sum(CLIP_DIMS) + 2, text_dim=TEXT_DIM, **options)
    return import_module(UPSTREAMS[upstream].module).official_state(head)


def official_file(folder: Path, upstream: str, **options: object) -> Path:
    """A training file as the official programs write it: pickled options with a device, optimiser, epoch."""
    path = folder / "model_best.ckpt"
    namespace = argparse.Namespace(device=torch.device("cpu"), **{**OPTIONS, **options})
    optimiser = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    entry = UPSTREAMS[upstream].entry
    torch.save({entry: official_weights(upstream), "optimizer": optimiser, "epoch": 3, "opt": namespace}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_import_and_export_give_the_official_file_back(tmp_path: Path, upstream: str) -> None:
    path = official_file(tmp_path, upstream)
    summary = import_checkpoint(ImportRequest(upstream=upstream, file=path, out=tmp_path / "run"))
    official = official_weights(upstream)
    assert summary.num_tensors == len(official)
    assert summary.options_from == "the checkpoint"
    export_checkpoint(tmp_path / "run", tmp_path / "back.ckpt")
    back = load_file(tmp_path / "back.ckpt")
    same = assert_same(back[UPSTREAMS[upstream].entry], official, summary.left_out)
    assert same > 0
    # What the file says of itself makes the same run again.
    import_checkpoint(ImportRequest(upstream=upstream, file=tmp_path / "back.ckpt", out=tmp_path / "again"))
    assert read_run(tmp_path / "again").head_config == read_run(tmp_path / "run").head_config
    export_checkpoint(tmp_path / "run", tmp_path / "back.safetensors")
    assert_same(load_safetensors(tmp_path / "back.safetensors"), official, summary.left_out)


def assert_same(found: dict[str, Tensor], official: dict[str, Tensor], unused: tuple[str, ...]) -> int:
    assert found.keys() == official.keys()
    compared = [name for name in official if name not in unused]
    for name in compared:
        torch.testing.assert_close(found[name], official[name], rtol=0, atol=0, msg=name)
    return len(compared)


def test_options_reach_the_head(tmp_path: Path) -> None:
    path = official_file(tmp_path, "qd-detr")
    import_checkpoint(ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run", published=True))
    head, record = load_head(tmp_path / "run")
    assert head.config.num_heads == 4
    assert head.config.losses.saliency == 3.0
    assert head.config.published
    assert record.settings["imported"]["options"]["device"] == "cpu"


def test_options_may_lie_beside_bare_weights(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(official_weights("qd-detr"), weights)
    (tmp_path / "opt.json").write_text(json.dumps({"nheads": 2}))
    summary = import_checkpoint(ImportRequest(upstream="qd-detr", file=weights, out=tmp_path / "run"))
    assert summary.options_from.endswith("opt.json")
    assert load_head(tmp_path / "run")[0].config.num_heads == 2


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("is_torch", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, is_torch: bool) -> None:
    path = tmp_path / "model.ckpt"
    if is_torch:
        torch.save({"model": {}, "opt": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match="refused"):
        import_checkpoint(ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_file_of_another_system_is_told(tmp_path: Path) -> None:
    path = official_file(tmp_path, "moment-detr")
    with pytest.raises(CheckpointError):
        import_checkpoint(ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run"))
    torch.save({"something": 1}, path)
    with pytest.raises(CheckpointError, match="'model'"):
        import_checkpoint(ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run"))


@pytest.mark.slow
def test_a_text_encoder_in_the_file_is_left_out_by_name(tmp_path: Path) -> None:
    """Some files of MESM hold the frozen encoder of their queries beside the head: importing them ended in a KeyError."""
    path = official_file(tmp_path, "mesm")
    content = load_file(path)
    content["model"] |= {"text_encoder.token_embedding.weight": torch.ones(5, 4, dtype=torch.float16)}
    torch.save(content, tmp_path / "whole.ckpt")
    plain = import_checkpoint(ImportRequest(upstream="mesm", file=path, out=tmp_path / "plain"))
    whole = import_checkpoint(ImportRequest(upstream="mesm", file=tmp_path / "whole.ckpt", out=tmp_path / "whole"))
    assert set(whole.left_out) - set(plain.left_out) == {"text_encoder.token_embedding.weight"}
    assert whole.num_tensors == plain.num_tensors + 1


def test_what_is_not_bound_says_so(tmp_path: Path) -> None:
    path = official_file(tmp_path, "qd-detr")
    summary = import_checkpoint(ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run"))
    assert "not bound" in summary.notes[0]
    with pytest.raises(CheckpointError, match="--text-encoder"):
        load_run(tmp_path / "run", torch.device("cpu"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = official_file(tmp_path, "qd-detr")
    request = ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run")
    import_checkpoint(request)
    with pytest.raises(ConfigError, match="already"):
        import_checkpoint(request)
    with pytest.raises(ConfigError, match="already"):
        export_checkpoint(tmp_path / "run", path)
    with pytest.raises(ConfigError, match=r"\.safetensors"):
        export_checkpoint(tmp_path / "run", tmp_path / "weights.bin")
    with pytest.raises(ConfigError, match="qd_detr"):
        export_checkpoint(tmp_path / "run", tmp_path / "w.ckpt", "mesm")


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    path = official_file(tmp_path, "qd-detr")
    with pytest.raises(CheckpointError, match="cannot be made"):
        import_checkpoint(ImportRequest(upstream="qd-detr", file=path, out=path / "run"))


@pytest.fixture
def cache(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two spaces of features whose widths add up to that of the official weights, with the endpoints."""
    for name, dim in zip(("slow", "clip"), CLIP_DIMS, strict=True):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "video.npz", features=rng.standard_normal((9, dim)).astype(np.float32))
        import_features([folder], tmp_path / "cache", ImportOptions(name=name, clip_length_s=2.0))
    return tmp_path / "cache"


def test_a_bound_run_works(tmp_path: Path, cache: Path) -> None:
    path = official_file(tmp_path, "qd-detr")
    vectors = tmp_path / "words.txt"
    vectors.write_text("".join(f"{word} {' '.join(['0.1'] * TEXT_DIM)}\n" for word in ("a", "green", "polyp")))
    request = ImportRequest(
        upstream="qd-detr", file=path, out=tmp_path / "run", cache=cache, streams=("slow", "clip"),
        text_encoder=str(vectors),
    )  # fmt: skip
    summary = import_checkpoint(request)
    assert [note.split(":")[0] for note in summary.notes] == [
        "the order of streams must be that of training, which weights do not tell",
        "scores are raw",
    ]
    assert not read_run(tmp_path / "run").is_calibrated
    run = load_run(tmp_path / "run", torch.device("cpu"))
    assert run.record.recipe is not None
    assert run.record.recipe.dim == sum(CLIP_DIMS) + 2
    assert [part.has_endpoints for part in run.record.recipe.parts] == [False, True]


def test_endpoints_in_the_middle_are_told(tmp_path: Path, cache: Path) -> None:
    """The width is the same wherever they stand: such a run was accepted without a word, and answered with noise."""
    words = tmp_path / "words.txt"
    words.write_text(f"polyp {' '.join(['0.1'] * TEXT_DIM)}\n")
    directories = ["features/slow", "features/clip"]
    for name, options, is_told in (
        ("plain", {"v_feat_dirs": directories}, True),
        ("sound", {"a_feat_dir": "pann"}, False),
    ):
        request = ImportRequest(
            upstream="qd-detr", file=official_file(tmp_path, "qd-detr", **options), out=tmp_path / name,
            cache=cache, streams=("clip+tef", "slow"), text_encoder=str(words),
        )  # fmt: skip
        notes = " ".join(import_checkpoint(request).notes)
        assert ("do not stand last" in notes) is is_told
        assert ("clip+tef + slow; its options name slow, clip" in notes) is is_told


def test_a_run_finds_its_words_from_any_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the file was kept as it was given, so the run worked in the folder of its import alone."""
    path, words = official_file(tmp_path, "qd-detr"), tmp_path / "words.txt"
    words.write_text(f"polyp {' '.join(['0.1'] * TEXT_DIM)}\n")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    import_checkpoint(
        ImportRequest(
            upstream="qd-detr", file=path, out=run, cache=cache, streams=("slow", "clip"), text_encoder="words.txt"
        )
    )
    monkeypatch.chdir("/")
    load_run(run, torch.device("cpu"))
    words.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"not there any more\nput words\.txt into .*run, or where it was"):
        load_run(run, torch.device("cpu"))
    (tmp_path / "elsewhere").rename(run / "words.txt")
    load_run(run.rename(tmp_path / "copied"), torch.device("cpu"))


def test_streams_of_the_wrong_width_are_told(tmp_path: Path, cache: Path) -> None:
    path = official_file(tmp_path, "qd-detr")
    request = ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run", cache=cache, streams=("slow",))
    with pytest.raises(ConfigError, match=r"34 numbers a clip, --stream gives 22 \(20 \+ 2\)"):
        import_checkpoint(request)
    with pytest.raises(ConfigError, match="go together"):
        ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run", cache=cache)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("is_bound_at_once", [True, False])
def test_an_exported_file_imports_as_the_same_run(
    tmp_path: Path, cache: Path, suffix: str, is_bound_at_once: bool
) -> None:
    """How many clips the head sees at once was lost (75 for 32), and with .safetensors every option; fitted constants too. A run
    that is bound only the second time keeps what its official options said."""
    path = official_file(tmp_path, "qd-detr", max_v_l=32, aux_loss=False)
    bound = {"cache": cache, "streams": ("slow", "clip")}
    first = ImportRequest(upstream="qd-detr", file=path, out=tmp_path / "run", published=True)
    import_checkpoint(replace(first, **bound) if is_bound_at_once else first)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    settings["ranking"] |= {"temperature": 2.5, "round_s": 2.0}
    settings.pop("digest")  # changed on purpose
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings | {"is_calibrated": True}))
    export_checkpoint(tmp_path / "run", tmp_path / f"exported.{suffix}")
    again = ImportRequest(upstream="qd-detr", file=tmp_path / f"exported.{suffix}", out=tmp_path / "again", **bound)
    assert "the checkpoint" in import_checkpoint(again).options_from
    found, was = (read_run(tmp_path / name) for name in ("again", "run"))
    assert found.recipe is not None
    assert (found.recipe.window_clips, found.ranking.temperature, found.is_calibrated) == (32, 2.5, True)
    assert (found.head_config, found.ranking) == (was.head_config, was.ranking)
    assert (found.head_config["aux_loss"], found.head_config["published"]) == (False, True)
    if is_bound_at_once:
        assert (found.recipe, found.spaces) == (was.recipe, was.spaces)


def test_odd_options_of_our_own_are_one_error(tmp_path: Path, cache: Path) -> None:
    for own, told in (("text", "to hold names and values"), ({"long_videos": "burn"}, "long_videos = 'burn'")):
        request = ImportRequest(
            upstream="qd-detr", file=official_file(tmp_path, "qd-detr", max_v_l=32, qle=own),
            out=tmp_path / "run", cache=cache, streams=("slow", "clip"),
        )  # fmt: skip
        with pytest.raises((CheckpointError, ConfigError), match=told):
            import_checkpoint(request)
    assert not (tmp_path / "run").exists()


def test_an_import_that_was_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    """Killed before its last file had its name, it left a folder that was "neither empty nor a run"."""
    request = ImportRequest(upstream="qd-detr", file=official_file(tmp_path, "qd-detr"), out=tmp_path / "run")
    import_checkpoint(request)
    whole = {path.name for path in (tmp_path / "run").iterdir()}
    (tmp_path / "run" / "config.json").rename(tmp_path / "run" / IMPORTING)
    import_checkpoint(request)
    assert {path.name for path in (tmp_path / "run").iterdir()} == whole
    with pytest.raises(ConfigError, match="already"):
        import_checkpoint(request)
