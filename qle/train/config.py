"""How a head is trained: everything that decides numbers and is not the head's, the data's or the text encoder's own."""

from dataclasses import dataclass
from typing import Literal, get_args

from qle.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
Schedule = Literal["cosine", "constant", "step"]
Decay = Literal["matrices", "all"]
Select = Literal["mAP", "mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "HL-mAP", "HIT@1", "top5-mAP"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of `train.*`. A step is one update of the weights, on all processes and accumulated batches together."""

    epochs: int = 20
    """Passes over the training windows."""
    steps: int | None = None
    """Steps in all; overrides `epochs`."""
    lr: float = 3e-4
    """Highest learning rate of the head."""
    text_lr: float = 1e-4
    """Highest learning rate of the trainable part of the text encoder."""
    weight_decay: float = 0.05
    """Pull of the weights towards 0."""
    decay: Decay = "matrices"
    """Which: matrices of linear, convolution and attention layers, and never biases, norms, embeddings, LoRA; or all that is
    trained (published for the heads that answer with spans)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Memory of AdamW for the gradient and for its square. Attention trains with a shorter one than the usual 0.999."""
    schedule: Schedule = "cosine"
    """The learning rate after the warm-up: down along a cosine to 0; constant; or to a tenth every `step_every` epochs."""
    step_every: int = 400
    """Epochs; with the schedule step only."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    clip_norm: float = 1.0
    """Longest gradient; 0: no limit."""
    accumulation: int = 1
    """Batches to a step."""
    ema_decay: float = 0.99
    """Decay of the running mean of the weights, which is what is validated and saved; 0: the weights themselves."""
    precision: Precision = "auto"
    """Number type of the forward pass; auto is bfloat16 where the hardware multiplies it (GPUs, CPUs with AVX-512 BF16), else
    float32."""
    eval_every: int | None = None
    """Steps between validations; None: `eval_epochs` says when."""
    eval_epochs: int = 1
    """Epochs between validations."""
    select: Select = "mAP"
    """What chooses the best step of heads that answer with spans: of moments, or of highlights as raters see them (HL-mAP,
    HIT@1: of very good clips; top5-mAP). Heads that score rows take the AUROC of rows and those that
    rank videos R@1, whatever stands here."""
    patience: int = 10
    """Validations without a better one after which training stops; 0: never."""
    checkpoint_every: int = 200
    """Steps between checkpoints, which a killed run goes on from."""
    log_every: int = 10
    """Steps between lines of the history."""
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("epochs", "accumulation", "checkpoint_every", "log_every", "step_every", "eval_epochs")
        for name in positive + tuple(name for name in ("steps", "eval_every") if getattr(self, name) is not None):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: expected 1 or more")
        for name in ("weight_decay", "clip_norm", "patience", "seed"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("lr", "text_lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: expected a number above 0")
        for name in ("warmup", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: expected 0 or more, and below 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"train.betas = {list(self.betas)}: expected two numbers, 0 or more and below 1")
        for name, kind in (("precision", Precision), ("schedule", Schedule), ("decay", Decay), ("select", Select)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"train.{name} = {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}")
