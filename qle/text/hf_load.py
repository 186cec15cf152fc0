"""Hugging Face text towers: found, loaded without their vision half, with their tokenizer and what it must not exceed.

    id or folder -> TextTower (network, tokenizer, how a sentence becomes one vector, word pieces that it reads)

Foreign failures become qle's errors (qle/hub.py). Nothing of a repository is executed: classes come from the library only.
Deviation from sentence-transformers: extra dense layers behind the pooling (`2_Dense` of a few models) are not applied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    MT5EncoderModel,
    SiglipTextModel,
    T5EncoderModel,
    UMT5EncoderModel,
)
from transformers.utils import cached_file

from qle.errors import ConfigError
from qle.hub import (
    check_complete,
    failures_as_config_errors,
    hub_options,
    missing_tensors,
    network_options,
    quiet_library,
)
from qle.inputs import parse_json, read_record_bytes
from qle.text.base import Piece
from qle.text.spelling import whole_words

Pooling = Literal["projected", "pooled", "mean", "first"]
"""The vector of a sentence: in the space of pictures, what the model itself calls pooled, the mean of its words, or CLS."""

TOWERS: dict[str, tuple[Any, Pooling]] = {
    "clip": (CLIPTextModelWithProjection, "projected"),
    "clip_text_model": (CLIPTextModelWithProjection, "projected"),
    "siglip": (SiglipTextModel, "pooled"),
    "siglip_text_model": (SiglipTextModel, "pooled"),
    "t5": (T5EncoderModel, "mean"),
    "mt5": (MT5EncoderModel, "mean"),
    "umt5": (UMT5EncoderModel, "mean"),
}
"""Model type -> the class of its text half, and its sentence vector. All others are read through AutoModel, as BERT is."""

FIXED_LENGTH = frozenset({"siglip_text_model"})
"""Trained on queries padded to full length without a mask: they pool the last, padded place."""

MAX_WORDS = 512
"""For models that know no limit (relative positions and a tokenizer without one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTower:
    """A text transformer in float32 on the CPU, as the library loads it."""

    network: nn.Module
    tokenizer: Any
    pooling: Pooling
    max_words: int
    """Word pieces with the marks of begin and end."""
    padded_words: int | None
    """Every query is padded to this length where the model was trained so."""
    architecture: dict[str, Any]
    """Class, pooling, and the settings that change numbers though the tensors stay the same."""


def load_text_tower(source: str) -> TextTower:
    """The tower that an id or folder stands for."""
    with quiet_library(), failures_as_config_errors(source, "text encoder"):
        options = hub_options(source)
        config = AutoConfig.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        network, config, pooling = _network(source, config, options)
        _check_vocabulary(tokenizer, network, source)
        if pooling == "mean" and config.model_type not in TOWERS:
            pooling = _sentence_pooling(source, options)
        sentence_settings = _beside(source, "sentence_bert_config.json", options)
    return TextTower(
        network=network.eval(), tokenizer=tokenizer, pooling=pooling,
        max_words=_word_limit(network, tokenizer, config, sentence_settings),
        padded_words=config.max_position_embeddings if config.model_type in FIXED_LENGTH else None,
        architecture=_architecture(network, config) | {"pooling": pooling},
    )  # fmt: skip


def spelt_pieces(tokenizer: Any, numbers: Sequence[int]) -> tuple[Piece, ...]:
    """Numbers that a tokenizer gave, with what they stand for."""
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    spelt = tokenizer.convert_ids_to_tokens(numbers)
    texts = whole_words(["" if number in marks else text for number, text in zip(numbers, spelt, strict=True)])
    return tuple(Piece(number, text) for number, text in zip(numbers, texts, strict=True))


def piece_reader(source: str) -> Callable[[str], tuple[Piece, ...]]:
    """What the tokenizer of a model makes of a query, without the model."""
    with quiet_library(), failures_as_config_errors(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, **hub_options(source))
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ConfigError(f"{source}: the tokenizer knows no words (its files are missing)")
    return lambda query: spelt_pieces(tokenizer, tokenizer(query, truncation=False, verbose=False)["input_ids"])


def _network(source: str, config: Any, options: dict[str, Any]) -> tuple[nn.Module, Any, Pooling]:
    """Only the text half is ever built, and every number in it comes from the files."""
    model_class, pooling = TOWERS.get(config.model_type, (AutoModel, "mean"))
    if model_class is AutoModel and (config.is_encoder_decoder or hasattr(config, "text_config")):
        raise ConfigError(
            f"{source}: text halves of models of type {config.model_type} are not supported\n"
            "choose CLIP, SigLIP, T5, or an encoder such as BERT or MiniLM"
        )
    if hasattr(config, "text_config"):
        if pooling == "projected":  # the width of the shared space stands beside the two towers
            config.text_config.projection_dim = config.projection_dim
        config = config.text_config
    network, report = model_class.from_pretrained(
        source, config=config, dtype=torch.float32, output_loading_info=True, **network_options(options)
    )
    missing = missing_tensors(report)
    unneeded = {name for name in missing if name.startswith("pooler.")} if model_class is AutoModel else set()
    if unneeded:  # it would be random, and words and their mean do without it
        network.pooler = None
    if missing == {"text_projection.weight"}:  # a text tower that was saved alone: its own pooled vector stands in
        network, pooling, missing = network.text_model, "pooled", set()
    check_complete(missing - unneeded, source)
    return network, config, pooling


def _check_vocabulary(tokenizer: Any, network: Any, source: str) -> None:
    """Without its files the library makes a tokenizer that knows no word, and says nothing."""
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ConfigError(
            f"{source}: the tokenizer knows no words (its files are missing)\n"
            "fetch the model again with tokenizer.json and tokenizer_config.json"
        )
    if len(tokenizer) > rows:
        raise ConfigError(
            f"{source}: the tokenizer has {len(tokenizer)} word pieces, the network {rows}\n"
            "take tokenizer and weights from the same model"
        )


def _word_limit(network: nn.Module, tokenizer: Any, config: Any, sentence_settings: dict[str, Any]) -> int:
    limits = [tokenizer.model_max_length, sentence_settings.get("max_seq_length")]
    if isinstance(positions := getattr(config, "max_position_embeddings", None), int) and positions > 0:
        limits.append(positions - _first_position(network))
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 1_000_000]
    return min(known, default=MAX_WORDS)


def _first_position(network: nn.Module) -> int:
    """The RoBERTa family counts positions from behind the padding index: 514 rows hold 512 words."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def _sentence_pooling(source: str, options: dict[str, Any]) -> Pooling:
    """The mean, unless the files say how their sentence vectors were trained."""
    settings = _beside(source, "1_Pooling/config.json", options)
    modes = {name.removeprefix("pooling_mode_") for name, value in settings.items() if value is True}
    modes = (modes | {str(settings.get("pooling_mode", ""))}) & {
        "cls", "cls_token", "max", "max_tokens", "mean", "mean_tokens", "mean_sqrt_len_tokens",
        "weightedmean", "weightedmean_tokens", "lasttoken",
    }  # fmt: skip
    if modes <= {"mean", "mean_tokens"}:
        return "mean"
    if modes <= {"cls", "cls_token"}:
        return "first"
    raise ConfigError(
        f"{source}: its sentence vectors are pooled by {', '.join(sorted(modes))}, which qle does not know\n"
        "choose a model that pools by mean or cls"
    )


def _beside(source: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A small JSON file that sentence encoders carry beside their weights; empty where there is none."""
    try:
        path = cached_file(source, name, local_files_only=options["local_files_only"])
    except OSError:
        return {}
    try:
        settings = parse_json(read_record_bytes(Path(path)))
    except ValueError as error:
        raise ConfigError(
            f"{source}: no text encoder could be loaded from there\n{name} is no JSON: {error}\ndownload it again"
        ) from error
    return settings if isinstance(settings, dict) else {}


def _architecture(network: nn.Module, config: Any) -> dict[str, Any]:
    names = ("num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "eos_token_id")
    return {"class": type(network).__name__} | {name: getattr(config, name, None) for name in names}
