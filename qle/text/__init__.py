"""Text encoders: queries in, words out. One file per kind; this one only finds and builds them.

    queries --queries.py: none empty or too long--> bank.py: each distinct one once
        --TextEncoder--> Words (states, mask, sentence)

base.py          the interface, and `Words`
request.py       what a user may choose
tiny.py          built in, trained together with the head
hf.py            any text tower of the transformers library; hf_load.py finds and opens it
minilm.py        a sentence encoder out of a pip package
vectors.py       word vectors from a text file, such as GloVe
stored.py        encodings of known queries; words_file.py reads and writes the file
lora.py          LoRA on a frozen tower
bank.py          each distinct query is encoded once
queries.py       what every encoder refuses
known.py         sentence vectors of the training texts, and how far a query is from them
spelling.py      which pieces of a tokenizer are whole words, and which of those say little

Adding one: a file with a final class that implements `qle.text.base.TextEncoder` and a function that builds it, and one line in
TEXT_ENCODERS. Importing this package loads no torch.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qle.config import build_config, load_plugin
from qle.errors import CheckpointError, ConfigError
from qle.hub import check_available
from qle.text.request import LoraSettings, TextRequest

if TYPE_CHECKING:
    import torch

    from qle.text.base import TextEncoder

__all__ = [
    "TEXT_ENCODERS",
    "LoraSettings",
    "TextRequest",
    "build_text_encoder",
    "check_recorded_encoder",
    "check_text_encoder",
    "kind_of",
    "rebuild_text_encoder",
]

TEXT_ENCODERS = {
    "hf": "qle.text.hf:build_hf",
    "minilm": "qle.text.minilm:build_minilm",
    "stored": "qle.text.stored:build_stored",
    "tiny": "qle.text.tiny:build_tiny",
    "vectors": "qle.text.vectors:build_vectors",
}
"""Name -> "module:function" that turns a TextRequest into an encoder on the CPU. `hf` is what ids and folders stand for,
`stored` and `vectors` what files do."""

FILE_KINDS = {".safetensors": "stored", ".txt": "vectors", ".vec": "vectors"}
"""Ending of a file -> the encoder that reads it."""


def check_text_encoder(name: str) -> None:
    """ConfigError for an unknown name, or a model that is neither here nor to be had, before anything large is imported."""
    if kind_of(name) == "hf":
        check_available(name)


def check_recorded_encoder(spec: Mapping[str, Any], run: Path) -> None:
    """The same for the encoder of `TextEncoder.spec()` in the record of a run; CheckpointError where it is none."""
    request = spec.get("request", {})
    if not isinstance(request, Mapping) or not isinstance(request.get("name", ""), str):
        raise CheckpointError(
            f"{run}: its record names no text encoder, but {str(request)[:60]!r}\nrestore it from a copy"
        )
    if "name" in request:
        check_text_encoder(_where_it_lies(request["name"], run))


def build_text_encoder(request: TextRequest, device: "torch.device | str" = "cpu") -> "TextEncoder":
    """The encoder that was asked for, loaded, in evaluation mode, on its device."""
    build: Callable[[TextRequest], TextEncoder] = load_plugin(TEXT_ENCODERS[kind_of(request.name)])
    return build(request).to(device).eval()


def rebuild_text_encoder(
    spec: Mapping[str, Any], device: "torch.device | str" = "cpu", *, source: str | None = None, run: Path | None = None
) -> "TextEncoder":
    """The encoder of `TextEncoder.spec()` before its `load_train_state`. Other base weights than the recorded ones are a
    CheckpointError. `source` says where the model lies now, for a folder that has moved since. `run`: the folder of the run,
    where a file or folder of the same name is looked for that is not where it was."""
    settings = dict(spec.get("request", {}))
    if source is not None:
        settings["name"] = source
    elif run is not None and "name" in settings:
        settings["name"] = _where_it_lies(settings["name"], run)
    encoder = build_text_encoder(build_config(TextRequest, settings, where="text encoder"), device)
    facts = encoder.spec()
    for fact, is_same in (
        ("architecture", facts.get("architecture") == spec.get("architecture")),
        ("weights", encoder.is_as(spec)),
    ):
        if not is_same:
            told = encoder.difference(spec) if fact == "weights" else None
            what = "file" if told else "model"
            told = told or f"{_short(facts.get(fact))} instead of {_short(spec.get(fact))}"
            raise CheckpointError(
                f"text encoder {settings['name']}: its {fact} are not those of the run: {told}\n"
                f"restore the {what} that the run was trained with, or train again with this one"
            )
    return encoder


def _where_it_lies(name: str, run: Path) -> str:
    """The path of an encoder that was read from a file or folder, where it was or in the run; other names as they are."""
    path = Path(name)
    if path.exists() or not (path.is_absolute() or path.suffix.lower() in FILE_KINDS):
        return name
    if (run / path.name).exists():
        return str(run / path.name)
    raise CheckpointError(
        f"{name}: the text encoder of the run is not there any more\nput {path.name} into {run}, or where it was"
    )


def kind_of(name: str) -> str:
    """The key of TEXT_ENCODERS that a name stands for."""
    names = sorted(TEXT_ENCODERS.keys() - {"hf", *FILE_KINDS.values()})
    if name in names:
        return name
    path = Path(name)
    if path.suffix.lower() in FILE_KINDS and not path.is_dir():
        return FILE_KINDS[path.suffix.lower()]  # where there is no such file, that encoder says so
    if "/" in name or path.is_dir():
        return "hf"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"unknown text encoder {name!r}: {hint}choose one of {', '.join(names)}\n"
        "or a Hugging Face id (owner/model), a folder with such a model, word vectors (.txt, .vec), or prepared words "
        "(.safetensors)"
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
