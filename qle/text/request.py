"""What a user may choose about the text encoder. No torch, so that command lines and settings stay fast."""

from dataclasses import dataclass, replace
from pathlib import Path

from qle.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on named linear layers; all other weights stay as they are."""

    r: int = 8
    """Rank."""
    alpha: float = 16.0
    """The update is scaled by alpha / r."""
    dropout: float = 0.05
    """Before the adapter, in training only."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Last part of the layers' names. CLIP's words (q_proj, k_proj, v_proj, out_proj) stand for the same layers of other
    families, whatever those call them."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"lora.r = {self.r}: expected a rank of at least 1")
        if not self.alpha > 0:
            raise ConfigError(f"lora.alpha = {self.alpha}: expected a number above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout = {self.dropout}: expected a share in [0, 1)")
        if not self.targets:
            raise ConfigError("lora.targets is empty: name the layers, e.g. q_proj and v_proj, or use no LoRA")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """Which encoder, and what of it is trained together with the head."""

    name: str = "tiny"
    """tiny, minilm, the id of a Hugging Face model ("openai/clip-vit-base-patch32"), a folder that holds one, a file of word
    vectors (.txt, .vec), or a file of prepared words (.safetensors)."""
    lora: LoraSettings | None = None
    """None: pretrained encoders are frozen. `tiny` is trained as a whole and takes no adapter."""
    max_words: int | None = None
    """Word pieces of the longest query; None takes what the model was made for."""
    dim: int | None = None
    """Width of a word vector of `tiny` (None: 64); pretrained encoders have their own."""
    seed: int = 0
    """Seed of the first values of whatever is trained."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("text.name is empty: name a text encoder, e.g. tiny or minilm")
        if self.max_words is not None and self.max_words < 1:
            raise ConfigError(f"text.max_words = {self.max_words}: expected at least 1")
        if self.dim is not None and (self.dim < 8 or self.dim % 4):
            raise ConfigError(f"text.dim = {self.dim}: expected a multiple of 4 of at least 8")


def lasting(request: TextRequest) -> TextRequest:
    """The same request from any folder: where its name is that of a file or folder, by the whole path. Runs hold it so."""
    path = Path(request.name)
    return replace(request, name=str(path.absolute())) if path.exists() else request
