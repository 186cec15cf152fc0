"""T-MASS: official weights give the official numbers; where the official evaluation leaks, so does what bears that name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from qle.compat.tmass import LOG_SCALE, UNUSED, head_from_official, left_out, official_options, official_state
from qle.errors import CheckpointError
from qle.eval.retrieval import CUTS, Ranks, both_ways, dual_softmax, metrics_of, published_leak_ranks
from qle.heads.retrieval import RetrievalBatch, RetrievalOutput
from qle.heads.tmass.head import TmassHead
from qle.heads.tmass.sampled_text import all_frame_cosines, cosines_of_trials, frame_cosines, sampled_texts
from qle.text.base import Words
from tests.golden_sets import golden_cases, golden_sets, read_config

NAMES = {"num_attention_heads": "num_mha_heads", "stochastic_trials": "stochasic_trials"}
"""Names of the fixtures for options that the official code calls otherwise."""
OFFICIAL = {f"r@{cut}": f"R{cut}" for cut in CUTS} | {"medr": "MedR", "meanr": "MeanR"}


@dataclass(frozen=True)
class Golden:
    """One case and its set."""

    given: dict[str, Tensor]
    state: dict[str, Tensor]
    settings: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Golden":
        return cls(load_file(path), *read_set(path.parent))

    @property
    def head(self) -> TmassHead:
        return head_from_official(self.state, self.settings)


def read_set(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Official weights and options."""
    settings = {NAMES.get(name, name): value for name, value in read_config(folder).items()}
    return load_file(folder / "weights.safetensors"), settings


def words_of(text: Tensor) -> Words:
    """Raw sentences, as an encoder gives them: a direction and a length."""
    norm = text.norm(dim=-1)
    return Words(
        states=text[:, None], mask=torch.ones(len(text), 1, dtype=torch.bool), sentence=text / norm[:, None],
        sentence_norm=norm,
    )  # fmt: skip


def batch_of(golden_case: dict[str, Tensor]) -> RetrievalBatch:
    text = golden_case["in.text"]
    return RetrievalBatch(
        frames=golden_case["in.frames"], queries=tuple(map(str, range(len(text)))), query_index=torch.arange(len(text)),
        words=words_of(text),
    )  # fmt: skip


def close(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=2e-6, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


@golden_cases("tmass", has=["out.radius"])
def test_modules(golden_case: Path) -> None:
    golden = Golden.read(golden_case)
    given, head = golden.given, golden.head
    text, frames, noise = given["in.text"], given["in.frames"], given["in.noise"]
    with torch.no_grad():
        radius = head.radius(frame_cosines(text, frames))
        pooled = head.pooling(text, frames)
        close(head.pooling.attend(text, frames), given["out.cross_attention"], "attention")
        close(pooled, given["out.pooled"], "pooled")
        close(radius, given["out.radius"], "radius")
        close(radius.log(), given["out.log_radius"], "log radius")
        close(text + radius * noise, given["out.text_stochastic"], "sampled text")
        close(head.compare(text, frames, noise).similarity, given["out.similarity"], "similarity")
        plain = torch.einsum("nd,vnd->nv", F.normalize(text, dim=-1), F.normalize(pooled, dim=-1))
        close(plain, given["out.similarity_plain_text"], "similarity of the text itself")


@golden_cases("tmass", has=["out.pooled", "out.similarity_plain_text"])
def test_pooling_of_any_numbers_of_texts_and_frames(golden_case: Path) -> None:
    golden = Golden.read(golden_case)
    given, head = golden.given, golden.head
    with torch.no_grad():
        pooled = head.pooling(given["in.text"], given["in.frames"])
    close(pooled, given["out.pooled"], "pooled")
    unit = F.normalize(given["in.text"], dim=-1)
    close(
        torch.einsum("nd,vnd->nv", unit, F.normalize(pooled, dim=-1)), given["out.similarity_plain_text"], "similarity"
    )


@golden_cases("tmass", has=["loss.total"])
def test_losses_and_gradients(golden_case: Path) -> None:
    golden = Golden.read(golden_case)
    given, head = golden.given, golden.head
    batch = batch_of(given)
    output = head.compare(given["in.text"], given["in.frames"], given["in.noise"])
    losses = head.loss(output, batch)
    assert isinstance(output, RetrievalOutput)
    close(output.similarity, given["out.similarity"], "similarity")
    close(output.support, given["out.similarity_support"], "support similarity")
    close(losses.terms["sampled"], given["loss.stochastic"], "loss of sampled texts")
    close(losses.terms["support"] / head.config.support_weight, given["loss.support"], "loss of support texts")
    close(losses.total, given["loss.total"], "total")
    losses.total.backward()
    gradients = {
        LOG_SCALE: head.log_scale,
        "pool_frames.cross_attn.q_proj.weight": head.pooling.queries.weight,
        "pool_frames.layer_norm1.weight": head.pooling.enter_norm.weight,
        "pool_frames.linear_proj.weight": head.pooling.linear.weight,
        "stochastic.std_branch.linear_proj.weight": head.radius.linear.weight,
    }
    assert {f"grad.{key}" for key in gradients} == {key for key in given if key.startswith("grad.")}
    for key, parameter in gradients.items():
        expected = given[f"grad.{key}"]
        torch.testing.assert_close(parameter.grad.norm(), expected, rtol=1e-4, atol=1e-5, msg=f"gradient of {key}")


@golden_cases("tmass", has=["out.correct_similarity_all_trials"])
def test_every_pair_is_scored_by_itself(golden_case: Path) -> None:
    golden = Golden.read(golden_case)
    given, head = golden.given, golden.head
    with torch.no_grad():
        trials = head.sampled_similarity(words_of(given["in.text"]), given["in.frames"], noise=given["in.noise"])
    close(trials, given["out.correct_similarity_all_trials"], "all trials")
    best, chosen = trials.max(-1)
    close(best, given["out.correct_similarity"], "best trial")
    assert torch.equal(chosen, given["out.correct_selected_trial"])


@golden_cases("tmass", has=["out.correct_similarity_all_trials"])
def test_the_fast_way_with_shared_noise_is_the_plain_way(golden_case: Path) -> None:
    """`similarity` never makes a sampled text; what it computes instead must be the same number."""
    golden = Golden.read(golden_case)
    given, head = golden.given, golden.head
    text, frames = given["in.text"], given["in.frames"]
    with torch.no_grad():
        found = head.similarity(words_of(text), frames)
        plain = head.sampled_similarity(words_of(text), frames, noise=head.noise[None, :, None])
        pooled, radius = head.pooling(text, frames), head.radius(all_frame_cosines(text, frames))
        # The recorded noise of one pair, given to all pairs: that pair must have its recorded scores.
        shared = cosines_of_trials(text, radius, pooled, given["in.noise"][0, :, 0])
    close(found, plain.amax(-1), "fast and plain")
    close(shared[0, 0], given["out.correct_similarity_all_trials"][0, 0], "recorded noise")


@golden_cases("tmass", has=["out.official_leaky_similarity"])
def test_the_published_evaluation_leaks_here_too(golden_case: Path) -> None:
    golden = Golden.read(golden_case)
    given, head = golden.given, golden.head
    text, frames, noise = given["in.text"], given["in.frames"], given["in.noise"]
    video = given["in.text_video_index"]
    with torch.no_grad():
        found = head.leaking_similarity(words_of(text), frames, video, noise=noise)
        pooled = head.pooling(text, frames)
        samples = sampled_texts(text, head.radius(all_frame_cosines(text, frames)), noise)
    close(pooled, given["out.pooled"], "pooled")
    best = torch.einsum("vknd,vnd->vkn", samples, F.normalize(pooled, dim=-1)).argmax(1)
    selected = samples.gather(1, best[:, None, :, None].expand(-1, -1, -1, samples.shape[-1]))[:, 0]
    close(selected, given["out.selected_text"], "selected texts")
    expected = given["out.official_leaky_similarity"]
    table = torch.full_like(expected, float("nan"))
    seen = dict.fromkeys(video.tolist(), 0)
    for place, group in enumerate(video.tolist()):
        table[group, seen[group]] = found[place]
        seen[group] += 1
    close(table, expected, "leaking similarity")


@golden_sets("tmass")
def test_what_is_exported_is_what_was_imported(golden_set: Path) -> None:
    state, settings = read_set(golden_set)
    head = head_from_official(state, settings)
    exported = official_state(head)
    assert exported.keys() == state.keys()
    for name in state.keys() - {UNUSED}:
        assert torch.equal(exported[name], state[name]), name
    again = head_from_official(exported, settings)
    assert again.config == head.config
    assert head_from_official(exported, official_options(head)).config == head.config
    names = {
        "num_mha_heads": "num_heads", "stochasic_trials": "trials", "num_frames": "num_frames",
        "support_loss_weight": "support_weight", "stochastic_prior": "prior", "stochastic_prior_std": "prior_std",
    }  # fmt: skip
    assert {name: getattr(head.config, ours) for name, ours in names.items()} == {
        name: settings[name] for name in names
    }
    assert len(head.radius.linear.bias) == settings["embed_dim"]


@golden_sets("tmass")
def test_whole_training_files_are_told_apart_by_name(golden_set: Path) -> None:
    state, settings = read_set(golden_set)
    towers = {
        "clip.text_model.final_layer_norm.bias": torch.zeros(3),
        "clip.visual_projection.weight": torch.zeros(2, 2),
    }
    whole = {f"module.{name}": tensor for name, tensor in (state | towers).items()}
    assert torch.equal(
        head_from_official(whole, settings).radius.linear.bias, state["stochastic.std_branch.linear_proj.bias"]
    )
    assert set(left_out(whole)) == {*towers, UNUSED}
    with pytest.raises(CheckpointError, match="strange"):
        head_from_official(state | {"pool_frames.strange.weight": torch.zeros(1)}, settings)
    short = {name: tensor for name, tensor in state.items() if "layer_norm3.bias" not in name}
    with pytest.raises(CheckpointError, match=r"pooled_norm\.bias"):
        head_from_official(short, settings)
    with pytest.raises(CheckpointError, match="not a checkpoint of T-MASS"):
        head_from_official({"a": torch.zeros(1)}, settings)


@golden_cases("tmass", has=["out.correct_t2v.ranks"])
def test_ranks_and_metrics(golden_case: Path) -> None:
    """Of the right score, and of the leaking one where the official program gives it."""
    given = {key: tensor.numpy() for key, tensor in load_file(golden_case).items()}
    video = given["in.text_video_index"]
    slot = np.tril(video[:, None] == video, -1).sum(1)
    scores = {"correct": both_ways(given["out.correct_similarity"], video)}
    if "out.official_leaky_similarity" in given:
        scores["official_leaky"] = published_leak_ranks(given["out.official_leaky_similarity"][video, slot], video)
    order = np.lexsort([video, slot])  # theirs: first captions of all videos, then second ones
    for score, ranks in scores.items():
        _same_ranks(given, f"out.{score}_t2v", ranks["text_to_video"], order)
        if f"out.{score}_v2t.ranks" in given:
            to_text = ranks["video_to_text"]
            _same_ranks(given, f"out.{score}_v2t", to_text, np.arange(len(to_text.video)))


@golden_cases("tmass", has=["out.correct_similarity_dsl"])
def test_dual_softmax(golden_case: Path) -> None:
    given = {key: tensor.numpy() for key, tensor in load_file(golden_case).items()}
    video = given["in.text_video_index"]
    dual = dual_softmax(given["out.correct_similarity"])
    np.testing.assert_allclose(dual, given["out.correct_similarity_dsl"], rtol=1e-4, atol=1e-7)
    ranks = both_ways(dual, video)["text_to_video"]
    slot = np.tril(video[:, None] == video, -1).sum(1)
    _same_ranks(given, "out.correct_dsl_t2v", ranks, np.lexsort([video, slot]))


def _same_ranks(given: dict[str, np.ndarray], name: str, ranks: Ranks, order: np.ndarray) -> None:
    assert not ranks.level.any()
    assert ranks.better[order].tolist() == given[f"{name}.ranks"].tolist()
    for metric, value in metrics_of(ranks).items():
        if metric in OFFICIAL:
            scale = 100 if metric.startswith("r@") else 1
            assert value * scale == pytest.approx(float(given[f"{name}.{OFFICIAL[metric]}"]), rel=1e-6), (name, metric)
