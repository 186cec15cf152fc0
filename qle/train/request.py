"""What the user asks of a training, and what it comes down to: settings with every default filled in, and files by content.

defaults < preset < flags < --set  ->  nested dict {head, data, train, text}  ->  Settings (frozen, checked)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qle.config import build_config, config_to_dict
from qle.errors import ConfigError
from qle.heads import head_class, task_of
from qle.text.request import TextRequest
from qle.train.config import TrainConfig

PARTS = ("head", "data", "train", "text")


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """One call of `qle train-heads`."""

    cache: Path
    space: str | None = None
    """Any unique beginning of its name; None: the only one."""
    streams: tuple[str, ...] = ()
    """--stream, for heads that read joined features (`StreamChoice.parse`); none: one of the only space."""
    annotations: Path
    val: Path
    head: str = "qle"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """{head: {...}, data: {...}, train: {...}, text: {...}}: presets and assignments, without defaults."""
    out: Path
    num_seeds: int | None = None
    """So many trainings under OUT/seed-0, seed-1, ..."""
    num_jobs: int | None = None
    """Of them at the same time, in processes of their own; None: as many as there are GPUs, or cores for their threads."""
    device: str = "auto"
    track: str = "auto"
    allow_missing: bool = False
    """Annotations of videos that the cache does not hold are left out."""
    allow_one_sided: bool = False
    """Train although there is no positive, or no negative, to learn from."""

    def __post_init__(self) -> None:
        if self.num_seeds is not None and self.num_seeds < 1:
            raise ConfigError(f"--seeds {self.num_seeds}: expected 1 or more")
        if self.num_jobs is not None and (self.num_jobs < 1 or self.num_seeds is None):
            raise ConfigError(f"--jobs {self.num_jobs}: expected 1 or more, and --seeds to train at the same time")

    def seed_folder(self, number: int) -> Path:
        """Of one of several seeds, counted from 0."""
        return self.out / f"seed-{number}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a user may set, resolved."""

    head_name: str
    head: Any
    data: Any
    """Of the kind that the task of the head reads (`Task.data_config`, qle/task.py)."""
    train: TrainConfig
    text: TextRequest

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the tree that presets and --set use; what is checked before a run goes on."""
        return {
            "head": {"name": self.head_name, **config_to_dict(self.head)},
            "data": config_to_dict(self.data),
            "train": config_to_dict(self.train),
            "text": config_to_dict(self.text),
        }

    def with_seed(self, seed: int) -> "Settings":
        """First weights, order and augmentation of the data, dropout: all from one number."""
        return replace(self, train=replace(self.train, seed=seed), text=replace(self.text, seed=seed))


def resolve(request: TrainRequest) -> Settings:
    """ConfigError for an unknown part, name or value."""
    tree = dict(request.settings)
    if unknown := sorted(tree.keys() - set(PARTS)):
        raise ConfigError(f"no settings {unknown[0]!r}: they begin with {', '.join(PARTS)} (e.g. train.lr)")
    for part in PARTS:
        if not isinstance(tree.setdefault(part, {}), Mapping):
            raise ConfigError(f"{part} = {tree[part]!r}: expected a table of settings, e.g. {part}.name = value")
    head_settings = dict(tree["head"])
    named = head_settings.pop("name", request.head)
    if named != request.head:
        raise ConfigError(
            f"the settings are for head {named!r}, --head is {request.head!r}: choose a preset of that head"
        )
    head = head_class(request.head)
    settings = Settings(
        head_name=request.head,
        head=build_config(head.Config, head_settings, where="head"),
        data=build_config(task_of(request.head).data_config_class, tree["data"], where="data"),
        train=build_config(TrainConfig, tree["train"], where="train"),
        text=build_config(TextRequest, tree["text"], where="text"),
    )
    return settings if "seed" in tree["text"] else settings.with_seed(settings.train.seed)
