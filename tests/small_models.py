"""Small instances of every backbone and text encoder, made on the spot and saved as their real files are."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from qle.backbones import BackboneRequest
from qle.text import LoraSettings, TextRequest
from qle.text.words_file import write_stored_words
from tests.small_m2crl import m2crl_file

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = SIZES | {"image_size": 48, "patch_size": 16}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}


def clip_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def siglip_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def dinov2_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {name: size for name, size in VISION.items() if name != "intermediate_size"} | {"image_size": 80}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)  # sees 48, so its position embedding is stretched
    BitImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def vit_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    ViTModel(ViTConfig(**VISION), add_pooling_layer=False).save_pretrained(folder)  # as DINO's published files are
    ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


REQUESTS: dict[str, Callable[[Path], BackboneRequest]] = {
    "tiny": lambda folder: BackboneRequest(name="tiny"),
    "m2crl-centre": lambda folder: BackboneRequest(name="m2crl", weights=m2crl_file(folder)),
    "m2crl-tile": lambda folder: BackboneRequest(
        name="m2crl", weights=m2crl_file(folder), context="tile", image_size=64
    ),
    "m2crl-single": lambda folder: BackboneRequest(name="m2crl", weights=m2crl_file(folder), context="single"),
    "hf-clip": lambda folder: BackboneRequest(name=str(clip_folder(folder))),
    "hf-siglip": lambda folder: BackboneRequest(name=str(siglip_folder(folder)), image_size=64),
    "hf-dinov2": lambda folder: BackboneRequest(name=str(dinov2_folder(folder))),
    "hf-vit": lambda folder: BackboneRequest(name="hf", weights=vit_folder(folder)),
}
"""Every entry of BACKBONES in the forms that matter."""

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,."
WORDS = [
    "a",
    "the",
    "green",
    "polyp",
    "polyps",
    "water",
    "jet",
    "then",
    "grasper",
    "x",
    "enters",
    "from",
    "left",
    ",",
    ".",
]
MERGES = ["t h", "th e</w>", "r e", "p o", "po l", "e r", "e r</w>", "e n", "p</w> s"]
WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
LONGEST = 40
"""Positions of the small text towers."""


def clip_tokenizer() -> CLIPTokenizer:
    """Letters and a few merges; the end mark has the highest number, as in the published vocabulary."""
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *(merge.replace(" ", "") for merge in MERGES[:-1])]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    merges = [tuple(merge.split(" ")) for merge in MERGES[:-1]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST)


def clip_text_settings(tokenizer: CLIPTokenizer) -> dict[str, int]:
    return SIZES | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def clip_pair_folder(folder: Path) -> Path:
    """A whole CLIP model with its tokenizer, as on the hub."""
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    config = CLIPConfig(vision_config=VISION, text_config=clip_text_settings(tokenizer), projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def clip_text_folder(folder: Path) -> Path:
    """The text tower alone, without a projection, as diffusion models keep it."""
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    CLIPTextModel(CLIPTextConfig(**clip_text_settings(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def word_piece_tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(dict.fromkeys(WORD_PIECES))})


def bert_folder(folder: Path) -> Path:
    tokenizer = word_piece_tokenizer()
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES, vocab_size=len(tokenizer), max_position_embeddings=LONGEST)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def siglip_text_folder(folder: Path) -> Path:
    tokenizer = word_piece_tokenizer()
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST, "projection_size": 24}
    SiglipTextModel(SiglipTextConfig(**sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5_folder(folder: Path) -> Path:
    tokenizer = word_piece_tokenizer()
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    T5EncoderModel(T5Config(**sizes, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vector_file(folder: Path) -> Path:
    """Word vectors in the form of word2vec's texts."""
    words = [word for word in WORDS if word.isalpha()]
    numbers = torch.randn(len(words), 12, generator=torch.Generator().manual_seed(4))
    lines = [f"{word} {' '.join(f'{number:.5f}' for number in row)}" for word, row in zip(words, numbers, strict=True)]
    path = folder / "small.vec"
    path.write_text("\n".join([f"{len(words)} 12", *lines]) + "\n")
    return path


KNOWN_QUERIES = ("a polyp", "a green polyp", "water jet, then the polyp", "polyp", "the polyp, then water jet", "x")


def stored_file(folder: Path, queries: Sequence[str] = (*KNOWN_QUERIES, "A grasper enters.")) -> Path:
    """What an encoder that is not at hand made of some queries, the same for the same words."""
    made: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for query in queries:
        rng = np.random.default_rng(list(query.encode()))
        num_words = len(query.split()) + 2
        made[query] = (
            rng.normal(size=(num_words, 16)).astype(np.float32),
            rng.normal(size=8).astype(np.float32) * 9,
            rng.integers(1, 50, num_words),
        )
    path = folder / "words.safetensors"
    write_stored_words(path, made)
    return path


LORA = LoraSettings(r=2, alpha=4)

TEXT_REQUESTS: dict[str, Callable[[Path], TextRequest]] = {
    "tiny": lambda folder: TextRequest(name="tiny"),
    "hf-clip": lambda folder: TextRequest(name=str(clip_pair_folder(folder))),
    "hf-clip-lora": lambda folder: TextRequest(name=str(clip_pair_folder(folder)), lora=LORA),
    "hf-clip-text": lambda folder: TextRequest(name=str(clip_text_folder(folder))),
    "hf-bert": lambda folder: TextRequest(name=str(bert_folder(folder))),
    "hf-bert-lora": lambda folder: TextRequest(name=str(bert_folder(folder)), lora=LORA),
    "hf-siglip": lambda folder: TextRequest(name=str(siglip_text_folder(folder))),
    "hf-t5-lora": lambda folder: TextRequest(name=str(t5_folder(folder)), lora=LORA),
    "minilm": lambda folder: TextRequest(name="minilm"),
    "minilm-lora": lambda folder: TextRequest(name="minilm", lora=LORA),
    "stored": lambda folder: TextRequest(name=str(stored_file(folder))),
    "vectors": lambda folder: TextRequest(name=str(vector_file(folder)), max_words=24),
}
"""Every entry of TEXT_ENCODERS in the forms that matter."""
