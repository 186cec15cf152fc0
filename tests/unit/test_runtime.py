"""Devices, number formats, seeds and the environment."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qle.errors import ConfigError
from qle.runtime import cache_folder, environment, has_fast_bfloat16, num_threads, resolve_device, resolve_dtype


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:77", "meta", "cpu:x"):
        with pytest.raises(ConfigError, match=r"device"):
            resolve_device(name)


def test_auto_takes_the_fast_format_of_the_device() -> None:
    expected = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    assert resolve_dtype("auto", torch.device("cpu")) == expected
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(ConfigError, match="auto, float32, bfloat16, float16"):
        resolve_dtype("int8", torch.device("cpu"))


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLE_THREADS", "3")
    assert num_threads() == 3
    monkeypatch.setenv("QLE_THREADS", "")
    assert num_threads() is None
    for wrong in ("many", "0", "-1"):
        monkeypatch.setenv("QLE_THREADS", wrong)
        with pytest.raises(ConfigError, match="QLE_THREADS"):
            num_threads()


def test_only_listed_variables_are_read() -> None:
    with pytest.raises(KeyError):
        environment("HOME")


IN_A_DESTRUCTOR = """
import os, signal, sys
from qle.runtime import interrupt_on_sigterm
interrupt_on_sigterm()
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10_000))
try:
    Dying()
    while True:
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_inside_a_destructor_is_not_lost() -> None:
    """Python drops it there; once a device process worked on to the end of its list, and its parent waited."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_DESTRUCTOR], capture_output=True, text=True, timeout=60, check=True
    )
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_the_cache_is_named_or_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QLE_CACHE", raising=False)
    with pytest.raises(ConfigError, match="--cache FOLDER"):
        cache_folder(None)
    monkeypatch.setenv("QLE_CACHE", "there")
    assert (cache_folder(None), cache_folder(Path("here"))) == (Path("there"), Path("here"))
