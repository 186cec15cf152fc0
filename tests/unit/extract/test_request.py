"""Numbers that no extraction can mean are refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from qle.backbones import BackboneRequest
from qle.errors import ConfigError
from qle.extract.request import MOST_WORKERS, ExtractRequest, TokenOptions
from qle.extract.sampling import Sampling


def _request(**options: Any) -> ExtractRequest:
    backbones = (BackboneRequest(name="tiny"),)
    return ExtractRequest(
        inputs=("a.mp4",), cache=Path("cache"), backbones=backbones, sampling=Sampling(mode="native"),
        tokens=TokenOptions(), **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 10_000}, r"--workers 10000: expected at most \d+ on this machine"),
        ({"num_workers": 0}, "--workers 0: expected 1 or more"),
        ({"stall_limit_s": float("nan")}, "--decode-timeout nan: expected seconds above 0"),
        ({"stall_limit_s": float("inf")}, "--decode-timeout inf"),
        ({"batch_frames": -1}, "--batch -1"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _request(**options)


@pytest.mark.parametrize("fps", [1e9, float("inf"), float("nan"), -1.0, 0.0])
def test_a_rate_out_of_range_says_the_range(fps: float) -> None:
    with pytest.raises(ConfigError, match="expected rows a second above 0 and below a million"):
        Sampling(mode="fps", fps=fps)


def test_any_machine_may_have_some_workers() -> None:
    assert _request(num_workers=MOST_WORKERS).num_workers == MOST_WORKERS
