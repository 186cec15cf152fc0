"""Any text tower that the transformers library knows: CLIP, SigLIP, BERT and MiniLM, T5, by id or local folder.

    queries -> word pieces -> tower (frozen, perhaps with LoRA) -> last hidden states, and one vector a sentence

Words are all that the tokenizer makes, with the marks of begin and end, as in the official use of CLIP by QLE. Padding goes
to the longest query of the call; masked places change nothing and come out as zeros. CLIP's states are those after its final
LayerNorm. The sentence vector is the family's own: CLIP's EOS state (projected where the weights can), SigLIP's pooled vector,
else the mean of the words.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qle.config import config_to_dict
from qle.errors import ConfigError
from qle.text.base import Piece, TextEncoder, Words
from qle.text.hf_load import TextTower, load_text_tower, spelt_pieces
from qle.text.lora import add_lora, set_adapter_dropout
from qle.text.queries import check_length, check_not_empty
from qle.text.request import TextRequest, lasting
from qle.weights import state_digest


def build_hf(request: TextRequest) -> "HuggingFaceText":
    """The model behind an id or folder."""
    return HuggingFaceText(load_text_tower(request.name), lasting(request))


class HuggingFaceText(TextEncoder):
    """A pretrained tower whose own weights never change; at most its LoRA adapters are trained."""

    def __init__(self, tower: TextTower, request: TextRequest) -> None:
        super().__init__()
        if request.dim is not None:
            raise ConfigError(f"text.dim = {request.dim}: {request.name} has a width of its own; drop it")
        if request.max_words is not None and request.max_words > tower.max_words:
            raise ConfigError(
                f"text.max_words = {request.max_words}: {request.name} reads at most {tower.max_words} word pieces"
            )
        self.name = request.name
        self.max_words = request.max_words or tower.max_words
        self.tower = tower.network.requires_grad_(requires_grad=False)
        self._digest = state_digest(self.tower.state_dict())
        self._request = request
        self._settings = tower
        if request.lora is not None:
            add_lora(self.tower, request.lora, seed=request.seed, where=request.name)
        self.train(False)
        self.dim, self.sentence_dim = self._widths()

    def train(self, mode: bool = True) -> "HuggingFaceText":
        """The tower always works as in evaluation: it is not trained, so its dropout would only be noise."""
        super().train(mode)
        self.tower.eval()
        set_adapter_dropout(self.tower, is_training=mode)
        return self

    def forward(self, queries: Sequence[str]) -> Words:
        check_not_empty(queries)
        pieces = [self._pieces(query) for query in queries]
        ids, mask = self._padded(pieces)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            states, sentence = self._encode(ids, mask)
        longest = max(len(row) for row in pieces)  # SigLIP's padding ends here
        mask = mask[:, :longest]
        states = states[:, :longest].masked_fill(~mask[..., None], 0.0)
        sentence = sentence.float()
        return Words(
            states=states, mask=mask, sentence=F.normalize(sentence, dim=-1), sentence_norm=sentence.norm(dim=-1),
            ids=ids[:, :longest].masked_fill(~mask, 0),
        )  # fmt: skip

    def check(self, query: str) -> None:
        self._pieces(query)

    def word_pieces(self, query: str) -> tuple[Piece, ...]:
        return spelt_pieces(self._settings.tokenizer, self._pieces(query))

    def spec(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "request": config_to_dict(self._request),
            "architecture": self._settings.architecture,
            "weights": self._digest,
            "dim": self.dim,
            "sentence_dim": self.sentence_dim,
            "max_words": self.max_words,
        }

    def _pieces(self, query: str) -> list[int]:
        # verbose=False: the library would warn about long queries, which are refused here.
        tokenizer = self._settings.tokenizer
        ids: list[int] = tokenizer(query, truncation=False, padding=False, verbose=False)["input_ids"]
        num_marks = tokenizer.num_special_tokens_to_add()
        check_length(query, len(ids), self.max_words, num_marks=num_marks, encoder=self.name)
        return ids

    def _padded(self, pieces: list[list[int]]) -> tuple[Int[Tensor, "queries words"], Bool[Tensor, "queries words"]]:
        width = self._settings.padded_words or max(len(row) for row in pieces)
        padding = self._settings.tokenizer.pad_token_id or 0  # masked, so any number does where a model has none
        ids = torch.tensor([row + [padding] * (width - len(row)) for row in pieces])
        lengths = torch.tensor([len(row) for row in pieces])
        mask = torch.arange(width) < lengths[:, None]
        return ids.to(self.device), mask.to(self.device)

    def _encode(
        self, ids: Int[Tensor, "queries words"], mask: Bool[Tensor, "queries words"]
    ) -> tuple[Float[Tensor, "queries words dim"], Float[Tensor, "queries sentence_dim"]]:
        attended = None if self._settings.padded_words else mask.long()
        output = self.tower(input_ids=ids, attention_mask=attended)
        states: Tensor = output.last_hidden_state
        match self._settings.pooling:
            case "projected":
                return states, output.text_embeds
            case "pooled":
                return states, output.pooler_output
            case "first":
                return states, states[:, 0]
            case "mean":
                weights = mask[..., None].to(states.dtype)
                return states, (states * weights).sum(dim=1) / weights.sum(dim=1)

    @torch.no_grad()
    def _widths(self) -> tuple[int, int]:
        """One word shows how wide its vectors are, which no config entry says for all models."""
        ids, mask = self._padded([self._settings.tokenizer("a")["input_ids"]])
        states, sentence = self._encode(ids, mask)
        return states.shape[-1], sentence.shape[-1]
