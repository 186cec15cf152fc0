"""Models of the Hugging Face library: ids and folders, without its own noise, its failures as qle's errors.

    id or folder -> hub_options -> from_pretrained(...) inside quiet_library() and failures_as_config_errors(...)
        -> check_complete

The library waits 25 s and more for a hub that cannot be reached, so qle asks once, briefly, before it lets the library try.
Nothing of a repository is executed: classes come from the installed library only, weights from safetensors files or through
`torch.load(weights_only=True)`, which is the library's default. What vision and text towers share stands here.

Both libraries are imported inside the functions: whether a model can be had is asked before seconds are spent on importing them.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from qle.errors import CheckpointError, ConfigError, QleError
from qle.runtime import environment

MAX_LISTED = 4
"""Tensors that a message names."""

ANSWER_S = 2.0
"""Seconds that the hub has to answer; a user who set HF_HUB_ETAG_TIMEOUT, the library's own name for this, gets that instead."""


def hub_options(source: str) -> dict[str, Any]:
    """Arguments for every `from_pretrained`: no foreign code, and no network where it is not wanted, needed or there.

    ConfigError, within about ANSWER_S seconds, for a model that is neither on this machine nor to be had from the hub.
    """
    return {"local_files_only": not _is_online(source), "trust_remote_code": False}


def network_options(options: dict[str, Any]) -> dict[str, Any]:
    """`hub_options` for the `from_pretrained` of a network: its search for an adapter does not hear `local_files_only` unless it
    is told apart, and waits 25 s for a hub that cannot be reached though everything was downloaded."""
    return options | {"adapter_kwargs": {"local_files_only": options["local_files_only"]}}


def check_available(source: str) -> None:
    """ConfigError where `hub_options` would raise it, without the seconds that importing torch takes."""
    _is_online(source)


def is_downloaded(source: str) -> bool:
    """Whether files of the model with this id lie in the local hub folder; not whether all of them do."""
    from huggingface_hub import constants

    return any(Path(constants.HF_HUB_CACHE, "models--" + source.replace("/", "--")).glob("snapshots/*/*"))


def _is_online(source: str) -> bool:
    """Whether the hub is asked for this model: not for folders, not where the user forbids it, not where it is out of reach."""
    if Path(source).is_dir():
        return False
    silence = "HF_HUB_OFFLINE is set" if environment("HF_HUB_OFFLINE") not in (None, "0") else _silence(source)
    if silence and not is_downloaded(source):
        raise ConfigError(
            f"{source}: no such folder, not among the downloaded models, and {silence}: check the id, or pass a folder"
        )
    return not silence


@cache
def _silence(source: str) -> str:
    """Why the hub cannot be asked for a model; empty where it answers, be it that there is no such model."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    limit_s = float(constants.HF_HUB_ETAG_TIMEOUT)
    limit_s = ANSWER_S if limit_s == constants.DEFAULT_ETAG_TIMEOUT else limit_s
    reason = [f"{constants.ENDPOINT} has not answered within {limit_s:g} s"]

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(source, "config.json"), timeout=limit_s)
        except HFValidationError:
            reason[0] = "it is no id of a model (owner/name)"
        except HfHubHTTPError as error:
            is_down = error.response is not None and error.response.status_code >= 500
            reason[0] = f"{constants.ENDPOINT} answers {error.response.status_code}" if is_down else ""
        except Exception as error:  # noqa: BLE001 - whatever the library's HTTP client calls a network that is not there
            reason[0] = f"{constants.ENDPOINT} cannot be reached ({str(error) or type(error).__name__})"
        else:
            reason[0] = ""

    # In a thread: looking up a name cannot be given a time limit, and takes half a minute where a network drops packets.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(limit_s)
    return reason[0]


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
    from transformers.utils import logging as library_logging

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
def failures_as_config_errors(source: str, kind: str) -> Iterator[None]:
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
