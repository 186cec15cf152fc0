"""Summaries by a local language model of the Hugging Face library: causal or encoder-decoder, by folder or id.

    sentences + task -> prompt -> chat template where the tokenizer has one -> greedy decoding -> tidy -> text

One prompt at a time and no sampling: a text depends on its own prompt and the weights alone. A prompt that is longer than
what the model reads loses sentences, evenly over the video. Weights come from safetensors files only, and no code of a
repository runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from qle.data.summaries.levels import Level, Summariser, Summary, evenly, tidy
from qle.errors import ConfigError
from qle.hub import (
    check_complete,
    failures_as_config_errors,
    hub_options,
    missing_tensors,
    network_options,
    quiet_library,
)
from qle.weights import state_digest

PROMPT = "These sentences describe, in order of time, what happens in a video:\n\n{sentences}\n\n{task} Answer with that alone."
"""Around the sentences, one a line."""
DECODING = "greedy"

_UNLIMITED = 1_000_000
"""Tokenizers without a limit say a number far above this."""


class LanguageModel(Summariser):
    """A model in the number format of its files, in evaluation mode."""

    def __init__(self, source: str, device: torch.device) -> None:
        self._source = source
        self._network, self._tokenizer = _load(source)
        self._weights = state_digest(self._network.state_dict())
        self._network.to(device)
        self._device = device
        self._is_chat = bool(self._tokenizer.chat_template)
        self._reads = _most_tokens(self._network.config, self._tokenizer)
        self._marks = _marks(self._network.generation_config, self._tokenizer)
        # Some versions of the library mix the model's own settings into what they are asked for: a temperature, penalties.
        self._network.generation_config = GenerationConfig(**self._marks)

    def identity(self, level: Level) -> Mapping[str, Any]:
        return {
            "method": "model",
            "model": self._source,
            "weights": self._weights,
            "dtype": str(self._network.dtype).removeprefix("torch."),
            "prompt": PROMPT.replace("{task}", level.task),
            "template": "chat" if self._is_chat else "plain",
            "decoding": f"{DECODING}, {level.max_tokens} tokens at most",
        }

    def summarise(self, sentences: Sequence[str], level: Level) -> Summary:
        with quiet_library():
            tokens, num_used = self._fitting(sentences, level)
            answer = self._answer(tokens, level)
        return Summary(text=tidy(answer, level), num_used=num_used)

    def _fitting(self, sentences: Sequence[str], level: Level) -> tuple[Mapping[str, torch.Tensor], int]:
        """The prompt with as many sentences as the model can read."""
        most = None if self._reads is None else self._reads - (0 if self._is_two_sided else level.max_tokens)
        low, high = 1, len(sentences)
        best: tuple[Mapping[str, torch.Tensor], int] | None = None
        count = high  # all of them, most of the time
        while low <= high:
            tokens = self._tokens(evenly(sentences, count), level)
            if most is None or tokens["input_ids"].shape[1] <= most:
                best, low = (tokens, count), count + 1
            else:
                high = count - 1
            count = (low + high) // 2
        if best is None:
            raise ConfigError(
                f"{self._source}: reads {self._reads} word pieces, too few for a prompt with one sentence and an answer of "
                f"{level.max_tokens}\nchoose a model with a longer memory"
            )
        return best

    @property
    def _is_two_sided(self) -> bool:
        return bool(self._network.config.is_encoder_decoder)

    def _tokens(self, sentences: Sequence[str], level: Level) -> Mapping[str, torch.Tensor]:
        prompt = PROMPT.format(
            sentences="\n".join(" ".join(sentence.split()) for sentence in sentences), task=level.task
        )
        if self._is_chat:
            tokens = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt",
                enable_thinking=False,
            )  # fmt: skip
        else:
            tokens = self._tokenizer(
                prompt + ("" if self._is_two_sided else "\n\n"), return_tensors="pt", verbose=False
            )
        return {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask")}

    def _answer(self, tokens: Mapping[str, torch.Tensor], level: Level) -> str:
        greedy = GenerationConfig(
            max_new_tokens=level.max_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
            **self._marks,
        )  # fmt: skip
        with torch.inference_mode():
            written = self._network.generate(**tokens, generation_config=greedy)
        new = written[0] if self._is_two_sided else written[0, tokens["input_ids"].shape[1] :]
        return str(self._tokenizer.decode(new, skip_special_tokens=True))


def _load(source: str) -> tuple[Any, Any]:
    with quiet_library(), failures_as_config_errors(source, "language model"):
        options = hub_options(source)
        config = AutoConfig.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        network, report = loader.from_pretrained(
            source,
            config=config,
            dtype="auto",
            use_safetensors=True,
            output_loading_info=True,
            **network_options(options),
        )
        check_complete(missing_tensors(report), source)
    _check_vocabulary(tokenizer, network, source)
    return network.eval(), tokenizer


def _check_vocabulary(tokenizer: Any, network: nn.Module, source: str) -> None:
    rows = network.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if not len(set(tokenizer.all_special_ids)) < len(tokenizer) <= rows:
        raise ConfigError(
            f"{source}: the tokenizer has {len(tokenizer)} word pieces, the network {rows}\n"
            "fetch the model again with its tokenizer"
        )


def _marks(own: Any, tokenizer: Any) -> dict[str, Any]:
    """Numbers of the word pieces that begin and end an answer: all that the model's own settings may decide."""
    end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    pad = tokenizer.pad_token_id
    if pad is None:  # nothing is padded, but the library wants to be told
        pad = end[0] if isinstance(end, list) else end
    return {
        "eos_token_id": end,
        "pad_token_id": pad,
        "bos_token_id": own.bos_token_id,
        "decoder_start_token_id": own.decoder_start_token_id,
    }


def _most_tokens(config: Any, tokenizer: Any) -> int | None:
    """What the model can read; None where nothing says (relative positions)."""
    limits = [tokenizer.model_max_length]
    limits += [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < _UNLIMITED]
    return min(known, default=None)
