"""Collections of golden numbers with other sets, sizes, options, seeds and names of cases than the one that we work with.

    seed -> official options drawn at random -> a head with random weights -> config.json, weights and cases of a set

The numbers of such a collection are those of our own heads (of QLE those of torch's modules), so they prove little about an
official program. What they prove is that the parity tests know no number of our collection, and that the official form of a head,
names and options, holds all of it: each set is made by exporting a head, and read by importing it again.
"""

import json
import random
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qle.compat import UPSTREAMS, tmass
from qle.config import build_config
from qle.heads import head_class
from qle.heads.base import TokenShapes
from qle.heads.moments import FEATURES, MomentHead
from qle.heads.retrieval import FRAMES
from qle.nn.detr.matcher import match
from qle.nn.temporal.ssm_published import PublishedSsmMixer
from tests.golden_middle import found_outputs, watched
from tests.golden_moments import GoldenSet, golden_batch
from tests.golden_sets import kind_of

TERMS = {"span": 7.0, "giou": 2.0, "label": 3.0, "saliency": 0.5}
"""Weights of losses that no published setting has."""


def make_collection(folder: Path, seed: int, names: tuple[str, ...]) -> None:
    """Sets of these names, each of the system that its name begins with."""
    for number, name in enumerate(names):
        make_set(folder / name, seed * 1000 + number)


def make_set(folder: Path, seed: int) -> None:
    kind = kind_of(folder.name)
    assert kind is not None, f"nobody knows what a set {folder.name} is of"
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    draw = random.Random(seed)
    makers: Mapping[str, Callable[[Path, random.Random], None]] = {"qle": _qle_set, "tmass": _tmass_set}
    makers.get(kind, _moment_set)(folder, draw)


def randomised(head: nn.Module) -> Any:
    """Weights without any zeros in which a fault could hide."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return head.eval()


def official_head(kind: str, draw: random.Random, *, clip_dim: int, text_dim: int, **settings: Any) -> MomentHead:
    """A head of the Moment-DETR family with drawn sizes and options."""
    num_heads = draw.choice([1, 2, 4])
    drawn: dict[str, Any] = {
        "dim": 8 * num_heads * draw.choice([1, 2]), "num_heads": num_heads, "hidden": draw.randint(5, 40),
        "encoder_layers": draw.randint(1, 3), "decoder_layers": draw.randint(1, 4), "num_queries": draw.randint(3, 7),
        "projection_layers": draw.randint(1, 3), "word_positions": draw.random() < 0.5, "max_words": draw.randint(7, 12),
        "aux_loss": draw.random() < 0.5, "normalise_words": False, "published": True,
        "losses": {**TERMS, "background_weight": 0.3, "margin": 0.4, "costs": {"span": 5.0, "giou": 2.0, "label": 3.0}},
    }  # fmt: skip
    if kind == "moment-detr":
        drawn |= {"pre_norm": draw.random() < 0.5, "aligns": draw.random() < 0.5, "align_weight": 0.3}
    else:
        drawn["text_to_video_layers"] = draw.randint(1, 3)
    if kind == "cg-detr":
        drawn |= {"num_dummies": draw.randint(1, 4), "num_prompts": 5, "kept_prompts": draw.randint(1, 3)}
        drawn |= {"dummy_layers": draw.randint(1, 2), "sentence_layers": 2, "moment_layers": draw.randint(1, 2)}
        drawn |= {"attention_weight": 0.5, "align_weight": 2.0, "distill_weight": 0.25}
    cls = head_class(kind.replace("-", "_"))
    shapes = TokenShapes(streams={FEATURES: (clip_dim,)}, text_dim=text_dim, sentence_dim=text_dim)
    return randomised(cls(build_config(cls.Config, drawn | settings, where=kind), shapes))


def _moment_set(folder: Path, draw: random.Random) -> None:
    kind, clip_dim, text_dim = str(kind_of(folder.name)), draw.randint(5, 20), draw.randint(4, 16)
    head = official_head(kind, draw, clip_dim=clip_dim, text_dim=text_dim)
    save_file(import_module(UPSTREAMS[kind].module).official_state(head), folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(_moment_config(kind, head)))
    golden = GoldenSet.read(folder)
    for is_loss in (False, True):
        inputs = moment_inputs(draw, clip_dim, text_dim, most_words=head.config.max_words)
        if is_loss:
            inputs |= moment_targets(inputs, draw)
        _write_case(folder, draw, inputs | _moment_outputs(golden, inputs, head))


def _moment_config(kind: str, head: MomentHead) -> dict[str, Any]:
    """As the folders of our collection write it."""
    config = head.config
    weights: dict[str, float] = {f"loss_{name}": value for name, value in TERMS.items()}
    found = {
        "hidden_dim": config.dim, "num_heads": config.num_heads, "feedforward_dim": config.hidden,
        "encoder_layers": config.encoder_layers, "decoder_layers": config.decoder_layers,
        "num_queries": config.num_queries, "input_projection_layers": config.projection_layers,
        "pre_norm": getattr(config, "pre_norm", False), "use_text_position": config.word_positions,
        "max_text_length": config.max_words, "auxiliary_losses": config.aux_loss, "contrastive_align": False,
        "no_object_weight": config.losses.background_weight, "saliency_margin": config.losses.margin,
        "matcher": {f"cost_{ours}": getattr(config.losses.costs, name) for ours, name in _COSTS.items()},
    }  # fmt: skip
    if kind == "moment-detr" and config.aligns:
        weights["loss_contrastive_align"] = config.align_weight
        found |= {"contrastive_align": True, "temperature": config.align_temperature}
    if kind == "cg-detr":
        weights |= {"loss_ms_align": config.align_weight, "loss_distill": config.distill_weight}
        weights["loss_orthogonal_dummy"] = config.distill_weight
        found |= {"num_prompts": config.kept_prompts, "total_prompts": config.num_prompts}
        found |= {"attention_saliency_weight": config.attention_weight, "num_dummies": config.num_dummies}
    layers = range(config.decoder_layers - 1 if config.aux_loss else 0)
    weights |= {f"{name}_{layer}": weight for name, weight in weights.items() for layer in layers}
    return {**found, "loss_weights": {name: weight for name, weight in weights.items() if "saliency_" not in name}}


_COSTS = {"span": "span", "giou": "giou", "class": "label"}


def moment_inputs(draw: random.Random, clip_dim: int, text_dim: int, *, most_words: int) -> dict[str, Tensor]:
    """A padded batch of clips and words under the names of golden tensors, every item of a recording of its own."""
    items = draw.randint(2, 4)
    clips, words = ([draw.randint(3, most) for _ in range(items)] for most in (11, most_words))
    masks = [(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).float() for lengths in (clips, words)]
    return {
        "in.src_vid": torch.randn(items, max(clips), clip_dim) * masks[0][..., None], "in.src_vid_mask": masks[0],
        "in.src_txt": torch.randn(items, max(words), text_dim) * masks[1][..., None], "in.src_txt_mask": masks[1],
        "in.video_group": torch.arange(items),
    }  # fmt: skip


def moment_targets(inputs: Mapping[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    """What is true of such a batch: one or two moments of each item, ratings of every other clip, two pairs of clips."""
    mask = inputs["in.src_vid_mask"]
    counts, lengths = torch.tensor([draw.randint(1, 2) for _ in mask]), mask.sum(1).long()
    widths = torch.rand(int(counts.sum())) * 0.3 + 0.1
    pairs = torch.stack([torch.randint(int(length), (2, 2)) for length in lengths]).unbind(1)
    ratings = torch.randint(1, 13, mask.shape) * mask
    ratings[:, 1::2] = 0.0
    return {
        "target.spans": torch.stack([widths / 2 + torch.rand(len(widths)) * (1 - widths), widths], dim=-1),
        "target.num_spans": counts,
        "target.saliency_all_labels": ratings,
        "target.saliency_pos_labels": pairs[0].contiguous(),
        "target.saliency_neg_labels": pairs[1].contiguous(),
        "loss.total": torch.zeros(()),  # there are targets; the sum itself follows
    }


def _moment_outputs(golden: GoldenSet, inputs: Mapping[str, Tensor], head: MomentHead) -> dict[str, Tensor]:
    batch = golden_batch(golden.kind, inputs)
    with watched(head) as seen:
        output = head(batch)
    found = {name: part.detach() for name, part in found_outputs(golden, head, batch, output, seen).items()}
    if batch.targets is None:
        return found
    losses = head.loss(output, batch)
    head.zero_grad()
    losses.total.backward()
    weights, names = (
        golden.config["loss_weights"],
        {"orthogonal": "orthogonal_dummy", "align": _align_name(golden.kind)},
    )
    for name, value in losses.terms.items():
        base, _, layer = name.partition("_")
        term = f"loss_{names.get(base, base)}{'_' + layer if layer else ''}"
        if not name.startswith(("saliency", "attention")):
            found[f"loss.{term}"] = value.detach() / weights[term]
    taught = [value for name, value in losses.terms.items() if name.startswith(("saliency", "attention"))]
    found |= {"loss.loss_saliency": torch.stack(taught).sum().detach() / weights["loss_saliency"]}
    found["loss.total"] = losses.total.detach()
    for layer in ("", *(f"_{number}" for number in range(golden.num_aux))):
        found[f"loss.class_error{layer}"] = _class_error(output, batch, head, layer, golden.num_aux)
    slopes = {name: part.grad for name, part in head.named_parameters() if part.grad is not None}
    own = head.state_dict()
    official = golden.compat.official_state(head)
    for name, part in official.items():  # those that are one tensor of ours, too
        mine = next((key for key, value in own.items() if key in slopes and torch.equal(value, part)), None)
        if mine is not None:
            found[f"grad.{name}"] = slopes[mine].norm()
    return found


def _align_name(kind: str) -> str:
    return "ms_align" if kind == "cg-detr" else "contrastive_align"


def _class_error(output: Any, batch: Any, head: MomentHead, layer: str, num_aux: int) -> Tensor:
    """Percentage of matched queries that are taken for background."""
    matches = match(output.logits, output.spans, batch.targets.spans, batch.targets.counts, head.config.losses.costs)
    number = int(layer[1:]) if layer else len(output.logits) - 1
    mine = matches.layer == number
    logits = output.logits[number, matches.item[mine], matches.query[mine]]
    return 100 * (logits.argmax(-1) != 0).float().mean()


class PublishedQle(nn.Module):
    """The published QLE heads as the torch modules that their official names are those of."""

    def __init__(self, dim: int, text_dim: int, num_heads: int, draw: random.Random) -> None:
        super().__init__()
        decoder = nn.TransformerDecoderLayer(dim, num_heads, draw.randint(5, 30), batch_first=True)
        guided = {"transformer_decoder": nn.TransformerDecoder(decoder, draw.randint(1, 3))}
        guided |= {"fc_relevance": nn.Linear(dim, 1), "text_proj": nn.Linear(text_dim, dim)}
        if draw.random() < 0.5:
            network = nn.Sequential(nn.Linear(2 * dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, 1))
            guided["confidence_module"] = nn.ModuleDict({"confidence_network": network})
        encoder = nn.TransformerEncoderLayer(dim, num_heads, draw.randint(5, 30), batch_first=True)
        temporal: dict[str, nn.Module] = {"transformer_encoder": nn.TransformerEncoder(encoder, draw.randint(1, 5))}
        if draw.random() < 0.5:
            sizes = {"state_dim": draw.randint(2, 6), "kernel": draw.randint(2, 5), "expand": draw.randint(1, 3)}
            temporal = dict(PublishedSsmMixer(dim, num_layers=draw.randint(1, 5), **sizes).named_children())
        temporal["fc_output"] = nn.Linear(dim, draw.choice([1, 2]))
        self.language_guided_head, self.temporal_head = nn.ModuleDict(guided), nn.ModuleDict(temporal)

    def forward(self, tokens: Tensor, text: Tensor, text_mask: Tensor) -> dict[str, Tensor]:
        """Of one video (rows, cells, dim) and one query (1, words, text_dim)."""
        head, rows = self.language_guided_head, len(tokens)
        words, hidden = head["text_proj"](text).expand(rows, -1, -1), ~text_mask.bool().expand(rows, -1)
        if "confidence_module" in head:
            both = torch.cat([tokens.mean(1), words.mean(1)], dim=-1)
            tokens = tokens * head["confidence_module"]["confidence_network"](both).sigmoid()[:, None]
        fused = head["transformer_decoder"](tokens, words, memory_key_padding_mask=hidden)
        mixed = fused.mean(1)[None]
        if "transformer_encoder" in self.temporal_head:
            mixed = self.temporal_head["transformer_encoder"](mixed)
        else:
            for layer in self.temporal_head["layers"]:
                mixed = mixed + layer(mixed)
            mixed = self.temporal_head["norm"](mixed)
        out = self.temporal_head["fc_output"](mixed)
        return {
            "out.fused": fused[None],
            "out.relevance_map": head["fc_relevance"](fused)[None, ..., 0],
            "out.raw_logit": head["fc_relevance"](fused.mean(1))[None, :, 0],
            "out.temporal": out if out.shape[-1] == 1 else nn.functional.softplus(out),
        }


def _qle_set(folder: Path, draw: random.Random) -> None:
    num_heads, dim, text_dim, num_words = draw.choice([2, 4]), 16, draw.randint(4, 12), draw.randint(2, 5)
    model = randomised(PublishedQle(dim, text_dim, num_heads, draw))
    state = model.state_dict()
    save_file(state, folder / "weights.safetensors")
    names = {name.split(".")[3] for name in state if ".transformer_decoder.layers." in name}
    told = {
        "num_heads": num_heads, "num_layers": len(names), "temporal_outputs": len(state["temporal_head.fc_output.bias"]),
        "confidence_fusion": "confidence_module" in model.language_guided_head,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    tokens, text = torch.randn(1, draw.randint(2, 6), draw.randint(4, 9), dim), torch.randn(1, num_words, text_dim)
    mask = torch.ones(1, num_words, dtype=torch.int64)
    mask[:, -1] = 0
    with torch.no_grad():
        outputs = model(tokens[0], text, mask)
    _write_case(folder, draw, {"in.tokens": tokens, "in.text": text, "in.text_mask": mask, **outputs})


def _tmass_set(folder: Path, draw: random.Random) -> None:
    heads, frames = draw.choice([1, 3]), draw.randint(3, 8)
    dim = 4 * heads * draw.randint(1, 3)
    cls = head_class("tmass")
    settings = {"num_frames": frames, "num_heads": heads, "trials": draw.randint(2, 6), "projection": "never"}
    settings |= {"prior": "normal", "prior_std": 0.3, "support_weight": 0.4}
    shapes = TokenShapes(streams={FRAMES: (dim,)}, text_dim=dim, sentence_dim=dim)
    head = randomised(cls(build_config(cls.Config, settings, where="tmass"), shapes))
    save_file(tmass.official_state(head), folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(tmass.official_options(head)))
    text, video = torch.randn(draw.randint(2, 4), dim), torch.randn(draw.randint(2, 4), draw.randint(2, 9), dim)
    with torch.no_grad():
        pooled = head.pooling(text, video)
        unit, units = (nn.functional.normalize(part, dim=-1) for part in (text, pooled))
    outputs = {"out.pooled": pooled, "out.similarity_plain_text": torch.einsum("nd,vnd->nv", unit, units)}
    _write_case(folder, draw, {"in.text": text, "in.frames": video, **outputs})


def _write_case(folder: Path, draw: random.Random, tensors: Mapping[str, Tensor]) -> None:
    """Under a name that says nothing."""
    content = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(content, folder / f"case-{draw.randrange(10**6)}.safetensors")
