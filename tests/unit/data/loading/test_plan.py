"""Where the tokens lie."""

import pytest

from qle.data.loading.plan import available_ram_bytes, choose_placement
from qle.errors import ConfigError

GB = 10**9


@pytest.mark.parametrize(
    ("size", "device", "processes", "name", "reason"),
    [
        (10 * GB, 80 * GB, 1, "device", "half of the 80.0 GB"),
        (60 * GB, 80 * GB, 1, "mapped", "page cache"),
        (10 * GB, None, 1, "ram", "a quarter of 100.0 GB"),
        (10 * GB, None, 4, "mapped", "page cache"),
        (5 * GB, None, 4, "ram", "in each of 4 processes"),
        (79 * GB, None, 1, "mapped", "page cache"),
        (81 * GB, None, 1, "streamed", "more than 100.0 GB"),
    ],
)
def test_auto_takes_the_fastest_that_fits(
    size: int, device: int | None, processes: int, name: str, reason: str
) -> None:
    found = choose_placement("auto", size, ram_bytes=100 * GB, device_bytes=device, num_processes=processes)
    assert found.name == name
    assert reason in found.reason
    assert found.size_bytes == size


def test_what_is_asked_for_is_taken_or_refused() -> None:
    assert choose_placement("streamed", 1, ram_bytes=GB, device_bytes=None).name == "streamed"
    assert choose_placement("device", GB // 2, ram_bytes=GB, device_bytes=None).name == "device"
    for name, device in (("ram", 9 * GB), ("device", GB), ("device", None)):
        with pytest.raises(ConfigError, match=r"take 2.00 GB, 1.00 GB are free"):
            choose_placement(name, 2 * GB, ram_bytes=GB, device_bytes=device)  # type: ignore[arg-type]


def test_some_memory_is_available_here() -> None:
    assert 10**7 < available_ram_bytes() < 10**14
