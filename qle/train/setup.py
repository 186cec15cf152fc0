"""What every kind of training is built from: annotation files, accelerator, text encoder and head. Whatever is wrong is said
here, before the first step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from qle.cache.reader import Space
from qle.config import config_to_dict
from qle.data.annotations import Annotation, read_annotations
from qle.data.loading.share import Share
from qle.durable import hash_file
from qle.errors import InputError
from qle.eval.floors import Priors, priors_of
from qle.heads import build_head
from qle.heads.base import TokenShapes
from qle.runtime import choose_accelerate_device, resolve_device, resolve_dtype, seed_everything
from qle.text import TextRequest, build_text_encoder, kind_of
from qle.text.bank import QueryBank
from qle.text.base import TextEncoder
from qle.text.words_file import StoredQueries
from qle.train.config import Precision
from qle.train.request import Settings, TrainRequest
from qle.train.steps.history import choose_trackers
from qle.train.steps.model import TrainedModel

BANK_BYTES = 1 << 30
"""Encoded queries that are kept while training. All of them, if at all possible: then they are encoded once, together."""

Match = Callable[[Sequence[Annotation]], tuple[Mapping[str, Sequence[Annotation]], Sequence[str]]]
"""Annotations by the key of their video, and the names that no video has: `match_videos` or `StreamSet.match`."""


@dataclass(frozen=True, kw_only=True)
class AnnotationPair:
    """What is learned from and what is validated on. Every annotation has its video."""

    train: tuple[Annotation, ...]
    val: tuple[Annotation, ...]
    train_of: Mapping[str, Sequence[Annotation]]
    """`train` by the key of its video."""
    val_of: Mapping[str, Sequence[Annotation]]
    """`val` by the key of its video."""
    identity: dict[str, Any]
    """The files by content, for the settings of the run."""
    notes: tuple[str, ...]
    """What the user should know and need not act on."""

    @property
    def keys(self) -> dict[str, str]:
        """The key of every video, by the name that the annotations have for it."""
        both = (*self.train_of.items(), *self.val_of.items())
        return {annotation.video: key for key, annotations in both for annotation in annotations}

    def priors(self, length_of: Callable[[str], float]) -> Priors:
        """What can be guessed from the training annotations without looking. length_of: seconds of a video by its key, asked
        where the annotations do not say."""
        keys = self.keys
        silent = {annotation.video for annotation in self.train if annotation.duration_s is None}
        lengths_s = {name: length_of(keys[name]) for name in silent}
        return priors_of(self.train, lengths_s, val=self.val, keys=keys)


def open_annotations(request: TrainRequest, match: Match, *, allow_unlabelled: bool = False) -> AnnotationPair:
    """Both files readable and found, or an error that says what is not. allow_unlabelled: rows without times say something."""
    notes: list[str] = []
    kept, matched, absent = [], [], []
    for flag, path in (("--annotations", request.annotations), ("--val", request.val)):
        annotations = _read(path, flag, allow_unlabelled)
        by_key, missing = match(annotations)
        absent += [f"{flag} {name}" for name in missing]
        if missing:
            notes.append(f"{path.name}: {len(missing)} videos are not in the cache, their annotations are left out")
        matched_ids = {id(annotation) for group in by_key.values() for annotation in group}
        kept.append(tuple(annotation for annotation in annotations if id(annotation) in matched_ids))
        matched.append(by_key)
    if shared := sorted(matched[0].keys() & matched[1].keys()):
        notes.append(
            f"{len(shared)} of {len(matched[1])} validation videos are trained on too ({shared[0]!r}, ...): "
            "the best step and the thresholds will be too hopeful"
        )
    identity: dict[str, Any] = {"annotations": hash_file(request.annotations), "val": hash_file(request.val)}
    if absent:  # a cache that has grown since is other data: neither the same epoch nor the same result
        names = "\n".join(sorted(absent)).encode()
        identity["missing"] = {"count": len(absent), "names": xxhash.xxh3_64_hexdigest(names)}
    return AnnotationPair(
        train=kept[0], val=kept[1], train_of=matched[0], val_of=matched[1], identity=identity, notes=tuple(notes)
    )


def share_of(accelerator: Accelerator, seed: int) -> Share:
    """The part of the training that this process has, as loaders of batches are told it."""
    shard = (accelerator.process_index, accelerator.num_processes)
    return Share(seed=seed, device=accelerator.device, shard=shard)


def build_accelerator(request: TrainRequest, precision: Precision, folder: Path) -> Accelerator:
    """One for each run: it carries the run's trackers."""
    wanted = resolve_device(request.device)
    choose_accelerate_device(wanted)
    device = PartialState(cpu=wanted.type == "cpu").device
    is_reduced = precision == "bfloat16" or (precision == "auto" and resolve_dtype("auto", device) == torch.bfloat16)
    # Accelerate keeps the precision of a process's first training and refuses another; the processes themselves stay as they are.
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if is_reduced else "no",
        # Batches of a step are weighted exactly by the loop (weighting.py); a number here would divide the loss once more.
        gradient_accumulation_steps=1,
        log_with=choose_trackers(request.track) or None,
        project_dir=folder,
    )


def build_model(
    settings: Settings,
    streams: Mapping[str, tuple[int, ...]],
    queries: Sequence[str],
    device: torch.device,
    *,
    settle: Callable[[Any, TextEncoder], Any] = lambda config, text: config,
) -> TrainedModel:
    """Fresh head and text encoder on a device; every query is checked, and encoded already where the encoder is frozen.

    streams: of `TokenShapes`. settle: the head's config with what only the training queries can tell.
    """
    seed_everything(settings.train.seed)
    text = build_text_encoder(settings.text, device)
    distinct = sorted(set(queries))
    for query in distinct:
        text.check(query)
    shapes = TokenShapes(streams=streams, text_dim=text.dim, sentence_dim=text.sentence_dim)
    head = build_head(settings.head_name, config_to_dict(settle(settings.head, text)), shapes)
    bank = QueryBank(text, keep_bytes=BANK_BYTES)
    if text.is_frozen and distinct:  # in one order, so that rounding does not depend on which batch asked first
        bank.encode(distinct)
    return TrainedModel(head.to(device), text, bank)


def text_identity(request: TextRequest, queries: Iterable[str]) -> dict[str, str]:
    """Where the text encoder is a file, what it says about these queries: for the settings of the run. Another file under the
    same name is another training; one that has grown by further queries is not."""
    kind, path = kind_of(request.name), Path(request.name)
    if kind == "stored":
        return {"text_content": StoredQueries(path).digest(queries)}
    return {"text_content": hash_file(path)} if kind == "vectors" and path.is_file() else {}


def space_identity(space: Space) -> dict[str, Any]:
    """What its numbers mean, for the settings of the run: tokens of another space are another training."""
    return {"name": space.record.name, "hash": space.record.hash, "hashed": space.record.hashed}


def _read(path: Path, flag: str, allow_unlabelled: bool) -> list[Annotation]:
    if not path.is_file():
        raise InputError(f"{flag} {path}: no such file\nmake one with: qle prepare (see qle prepare --help)")
    return read_annotations(path, allow_unlabelled=allow_unlabelled)
