"""Moment-DETR, QD-DETR, CG-DETR and MESM: official weights give the official numbers of every layer, in and out of training.

Run over every set and case of a collection; sizes, options and weights of losses are those of its `config.json`.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qle.errors import CheckpointError
from qle.heads.mesm.head import MesmHead
from qle.heads.moments import MomentBatch, MomentHead, MomentOutput
from tests.golden_mesm import cut_words, mesm_answer, mesm_batch
from tests.golden_middle import found_outputs, unread_outputs, watched
from tests.golden_moments import (
    KINDS,
    NO_SPANS,
    GoldenSet,
    check,
    check_gradients,
    check_matches,
    check_terms,
    compare,
    golden_batch,
)
from tests.golden_sets import golden_cases, golden_sets

pytestmark = pytest.mark.usefixtures("one_thread")


def answer(golden: GoldenSet, head: MomentHead, case: Mapping[str, Tensor]) -> tuple[MomentBatch, MomentOutput]:
    if isinstance(head, MesmHead):
        return mesm_batch(case), mesm_answer(head, case)
    batch = golden_batch(golden.kind, case)
    return batch, head(batch)


@golden_cases(*KINDS, has=["out.pred_logits"])
def test_official_weights_give_official_numbers(golden_case: Path) -> None:
    golden, case = GoldenSet.read(golden_case.parent), load_file(golden_case)
    head = golden.head(published=True)
    with torch.no_grad(), watched(head) as seen:
        batch, output = answer(golden, head, case)
    found = found_outputs(golden, head, batch, output, seen)
    compare(case, found, batch, unread=unread_outputs(golden))


@golden_cases(*KINDS, has=["loss.total"])
def test_training_makes_the_official_steps(golden_case: Path) -> None:
    """Matches, every term of every layer with its weight, their sum, and gradients."""
    golden, case = GoldenSet.read(golden_case.parent), load_file(golden_case)
    has_spans = any(name.startswith("match.") or name in ("target.spans", "target.norm_span") for name in case)
    head = golden.head(published=True, **({} if has_spans else NO_SPANS))
    batch, output = answer(golden, head, case)
    losses = head.loss(output, batch)
    losses.total.backward()
    assert batch.targets is not None
    if has_spans:
        check_matches(case, output, batch.targets, head.config.losses.costs, golden.num_aux)
    check_terms(golden, case, losses.terms, losses.total)
    check_gradients(case, head, golden.compat.official_state)


@golden_cases(*KINDS, has=["solo."])
def test_by_default_an_item_is_what_it_is_alone(golden_case: Path) -> None:
    """In a batch, where the official program shows some heads the mask of another item, and alone."""
    golden, case = GoldenSet.read(golden_case.parent), load_file(golden_case)
    head = golden.head(published=False)
    for item in sorted({int(name.split(".")[1]) for name in case if name.startswith("solo.")}):
        if isinstance(head, MesmHead):
            places = [(item, cut_words(mesm_batch(case), head.config.max_words))]
            places.append((0, cut_words(mesm_batch(case, slice(item, item + 1)), head.config.max_words)))
        else:
            places = [(item, golden_batch(golden.kind, case, with_negatives=False))]
        for place, batch in places:
            with torch.no_grad():
                output = head(batch)
            real = batch.clip_mask[place]
            found = {
                "pred_logits": output.logits[-1, place],
                "pred_spans": output.spans[-1, place],
                "saliency_scores": output.saliency[place][real],
            }
            if "attention" in output.extras:
                found["t2vattnvalues"] = output.extras["attention"][place][real]
            expected = {name.split(".")[2]: value for name, value in case.items() if name.startswith(f"solo.{item}.")}
            assert expected.keys() <= found.keys()
            for name, value in expected.items():
                check(found[name], value, f"{name} of {item}")


@golden_cases(*KINDS, has=["loss.total"])
def test_without_padding_both_modes_train_alike(golden_case: Path) -> None:
    """The bounded form of the negative term has the same value. CG-DETR differs in more than padding, MESM in its recordings."""
    golden, case = GoldenSet.read(golden_case.parent), load_file(golden_case)
    if (
        golden.kind not in ("moment-detr", "qd-detr")
        or "target.spans" not in case
        or golden.config["use_text_position"]
    ):
        return
    head, batch = golden.head(published=False), golden_batch(golden.kind, case)
    if bool(batch.clip_mask.all()) and bool(case["in.src_txt_mask"].bool().all()):
        losses = head.loss(head(batch), batch)
        check_terms(golden, case, losses.terms, losses.total)


@pytest.mark.parametrize("published", [True, False])
@golden_sets(*KINDS)
def test_official_names_come_back(golden_set: Path, published: bool) -> None:
    """All of them, and the same numbers; where our head holds no tensor that theirs never uses, an empty one."""
    golden = GoldenSet.read(golden_set)
    head = golden.head(published=published)
    back, state = golden.compat.official_state(head), golden.without_unread()
    assert {name: part.shape for name, part in back.items()} == {name: part.shape for name, part in state.items()}
    differ = {name for name in state if not torch.equal(back[name], state[name])}
    assert {name for name in differ if not name.startswith(_never_read(golden, published=published))} == set()


def _never_read(golden: GoldenSet, *, published: bool) -> tuple[str, ...]:
    """Beginnings of the names of tensors that nothing reads, so that the head has none: always, or with the faults mended."""
    always = ("txt_proj_linear.",) if golden.kind == "cg-detr" else ()
    if published:
        return always
    places = () if golden.config["use_text_position"] else ("txt_position_embed.",)
    enhance = () if golden.config.get("frame_word_reconstruction", True) else ("enhance_encoder.",)
    return (*always, *places, *enhance, "contrastive_align_projection_vid.", "ss_reconstructor.output_sent_proj.")


@golden_sets(*KINDS)
def test_sizes_are_those_of_the_set(golden_set: Path) -> None:
    golden = GoldenSet.read(golden_set)
    found = golden.head().config
    names = {
        "hidden_dim": "dim", "num_heads": "num_heads", "feedforward_dim": "hidden", "encoder_layers": "encoder_layers",
        "decoder_layers": "decoder_layers", "num_queries": "num_queries", "input_projection_layers": "projection_layers",
        "auxiliary_losses": "aux_loss", "max_text_length": "max_words", "max_words": "max_words", "pre_norm": "pre_norm",
        "text_to_video_layers": "text_to_video_layers", "dummy_layers": "dummy_layers", "sentence_layers": "sentence_layers",
        "moment_layers": "moment_layers", "num_dummies": "num_dummies", "total_prompts": "num_prompts",
        "num_prompts": "kept_prompts", "enhance_layers": "enhance_layers", "align_layers": "align_layers",
    }  # fmt: skip
    expected = {ours: golden.config[name] for name, ours in names.items() if name in golden.config}
    if golden.config.get("segment_sentence_reconstruction") is False:
        expected["sentence_layers"] = 0
    if not hasattr(found, "pre_norm"):
        assert not expected.pop("pre_norm", False)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("published", [True, False])
@golden_sets(*KINDS)
def test_a_head_says_which_options_make_it_again(golden_set: Path, published: bool) -> None:
    golden = GoldenSet.read(golden_set)
    head, compat = golden.head(published=published), golden.compat
    assert compat.head_from_official(compat.official_state(head), compat.official_options(head)).config == head.config


@golden_sets(*KINDS)
def test_tensors_that_do_not_fit_are_named(golden_set: Path) -> None:
    golden = GoldenSet.read(golden_set)
    state, options, read = (
        golden.without_unread(),
        {"nheads": golden.config["num_heads"]},
        golden.compat.head_from_official,
    )
    with pytest.raises(CheckpointError, match="1 unexpected: strange"):
        read(state | {"strange.weight": torch.zeros(1)}, options)
    name = next(
        name for name in sorted(state) if name.startswith("transformer.decoder.") and name.endswith(".norm3.bias")
    )
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        read({key: part for key, part in state.items() if key != name}, options)
    wide = torch.zeros(*state[name].shape, 2)
    with pytest.raises(CheckpointError, match=f"{name} .* instead of"):
        read(state | {name: wide}, options)
    with pytest.raises(CheckpointError, match="not a checkpoint of"):
        read({"a": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="span_loss_type"):
        read(state | {"span_embed.layers.2.bias": torch.zeros(150)}, options)
    parallel = {f"module.{key}": part for key, part in state.items()}
    assert golden.compat.official_state(read(parallel, options)).keys() == state.keys()


@golden_sets("mesm")
def test_a_text_encoder_beside_the_head_is_left_out_by_name(golden_set: Path) -> None:
    """As the model holds it while it works; which words the classes are, the file does not say."""
    golden = GoldenSet.read(golden_set)
    state = dict(golden.state) | {"text_encoder.ln_final.weight": torch.ones(3)}
    is_tower = golden.config["word_classes"] > golden.config["vocab_size"] + 1
    kind = {"tokenizer_type": "CLIP" if is_tower else "GloVeNLTK"}
    head = golden.compat.head_from_official(state, {"nheads": golden.config["num_heads"]} | kind)
    num_words = golden.config["vocab_size"] if golden.config["frame_word_reconstruction"] else 0
    assert head.config.vocabulary == (-1,) * num_words
