"""Small language models, made on the spot and saved as their real files are: causal, causal with a chat template, two-sided."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

_VOCABULARY = (
    "<pad> </s> <unk> a the man cooks an egg he pan into puts plate on peels orange knife then eats video sentence title one "
    ". , : USER BOT these sentences describe in order of time what happens give say at most eight words short answer with "
    "that alone three from its beginning to end"
)
WORDS = _VOCABULARY.split()
TEMPLATE = "{% for message in messages %}USER {{ message['content'] }}{% endfor %}{% if add_generation_prompt %} BOT{% endif %}"
READS = 256
"""Word pieces."""


def word_tokenizer(**facts: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=READS, **facts
    )  # fmt: skip


def gpt2_folder(folder: Path, *, is_chat: bool = False, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": READS}
    config = GPT2Config(**sizes, vocab_size=len(WORDS), bos_token_id=1, eos_token_id=1, pad_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    word_tokenizer(**({"chat_template": TEMPLATE} if is_chat else {})).save_pretrained(folder)
    return folder


def t5_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    config = T5Config(**sizes, vocab_size=len(WORDS), decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder
