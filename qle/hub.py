"""Models of the Hugging Face library: ids and folders, without its own noise, its failures as qle's errors.

    id or folder -> hub_options -> from_pretrained(...) inside quiet_library() and explained(...) -> check_complete

Nothing of a repository is executed: classes come from the installed library only, weights from safetensors files or through
`torch.load(weights_only=True)`, which is the library's default. What vision and text towers share stands here.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as library_logging

from qle.errors import CheckpointError, ConfigError, QleError
from qle.runtime import environment

MAX_LISTED = 4
"""Tensors that a message names."""


def hub_options(source: str) -> dict[str, Any]:
    """Arguments for every `from_pretrained`: no foreign code, and no network where the user said so or gave a folder."""
    is_local = Path(source).is_dir() or environment("HF_HUB_OFFLINE") not in (None, "0")
    return {"local_files_only": is_local, "trust_remote_code": False}


def missing_tensors(report: Mapping[str, Any]) -> set[str]:
    """Names that the files lack or have in another shape, from the library's loading report: it fills them with noise."""
    return {str(name) for name in report["missing_keys"]} | {str(entry[0]) for entry in report["mismatched_keys"]}


def check_complete(missing: Collection[str], source: str) -> None:
    """CheckpointError where a number of the network would not come from the files."""
    if missing:
        named = ", ".join(sorted(missing)[:MAX_LISTED])
        raise CheckpointError(
            f"{source}: {len(missing)} tensors are missing or misshapen: {named}\nfetch the model again"
        )


@contextmanager
def quiet_library() -> Iterator[None]:
    """The library reports on stderr what is checked here; a progress bar of its own would cut through ours."""
    level, has_bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if has_bars:
            library_logging.enable_progress_bar()


@contextmanager
def explained(source: str, kind: str) -> Iterator[None]:
    """Failures of the library inside become a ConfigError: "no <kind> could be loaded from there"."""
    try:
        yield
    except QleError:
        raise
    except (
        Exception
    ) as error:  # a damaged folder makes the library fail in any way: KeyError, SafetensorError, pickle's ...
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ConfigError(
            f"{source}: no {kind} could be loaded from there ({lines[0][:200]})\n"
            "check the id or folder; without a network it must have been downloaded before"
        ) from error
