"""From the folder of a finished run to a head with its words, ready to score."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qle.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qle.heads.base import Head
    from qle.text.bank import QueryBank
    from qle.text.known import KnownTexts
from qle.runs.record import CONFIG_FILE, KNOWN_FILE, MODEL_FILE, TEXT_FILE, RunRecord, read_run


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A trained head with its words, in evaluation mode on a device."""

    folder: Path
    head: "Head"
    text: "QueryBank"
    record: RunRecord
    known: "KnownTexts | None" = None
    """How far the knowledge of the run reaches; None in runs that do not know."""


def check_run(folder: Path) -> RunRecord:
    """The record of a run, read before the seconds that importing torch takes: CheckpointError where there is no finished run,
    ConfigError where its text encoder is a model that is neither on this machine nor to be had."""
    from qle.text import check_recorded_encoder

    record = read_run(folder)
    check_recorded_encoder(record.text, folder)
    return record


def load_head(folder: Path) -> "tuple[Head, RunRecord]":
    """The head of a finished run, on the CPU. CheckpointError says what is wrong with it otherwise."""
    from qle.heads import build_head, head_class
    from qle.weights import load_exactly

    record = read_run(folder)
    try:
        settings = {**head_class(record.head).earlier, **record.head_config}
        head = build_head(record.head, settings, record.token_shapes)
    # No such head, shapes that none can have, or no recipe for one that needs it.
    except (ConfigError, KeyError, ValueError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: no head can be built from this record ({error})") from error
    load_exactly(head, _tensors(folder, MODEL_FILE, record), where=f"{folder / MODEL_FILE} (head {record.head})")
    return head, record


def load_run(folder: Path, device: "torch.device") -> LoadedRun:
    """Head and words of a finished run, ready to score. CheckpointError says what is wrong with it otherwise."""
    from qle.text import rebuild_text_encoder
    from qle.text.bank import QueryBank

    head, record = load_head(folder)
    if not record.text or not record.space.hash:
        raise CheckpointError(
            f"{folder}: imported weights that are bound to no {'features' if record.text else 'text encoder'} yet\n"
            "run qle checkpoint import again with --cache, --stream and --text-encoder"
        )
    text = rebuild_text_encoder(record.text, device, run=folder)
    if not text.is_frozen:  # then the run has trained it, and without its own numbers it would be noise
        text.load_train_state(_tensors(folder, TEXT_FILE, record))
    head.to(device).requires_grad_(False).eval()
    text.to(device).requires_grad_(False).eval()
    known = _known(folder, record, device)
    return LoadedRun(folder=folder, head=head, text=QueryBank(text), record=record, known=known)


def _known(folder: Path, record: RunRecord, device: "torch.device") -> "KnownTexts | None":
    from qle.text.known import SENTENCES, KnownTexts

    if record.known is None:
        return None
    sentences = _tensors(folder, KNOWN_FILE, record)[SENTENCES].to(device)
    return KnownTexts(sentences=sentences, limit=record.known.limit, slope=record.known.slope)


def _tensors(folder: Path, name: str, record: RunRecord) -> dict[str, "Tensor"]:
    from qle.weights import load_file, state_digest

    path = folder / name
    if not path.exists():
        raise CheckpointError(f"{folder}: half of a run: {name} is missing\ncopy the whole folder, or train again")
    try:
        state: dict[str, Tensor] = load_file(path)
    except CheckpointError as error:  # its advice is for weights that somebody published
        raise CheckpointError(
            f"{str(error).splitlines()[0]}\nthe run {folder} is damaged: copy the whole folder again, or train again"
        ) from error
    if state_digest(state) != record.digests.get(name):
        raise CheckpointError(
            f"{path}: not the weights that {CONFIG_FILE} was written for (their digest differs)\n"
            "the file is damaged or from another run: copy the whole folder again, or train again"
        )
    return state
