"""Where the test material lies, and one seed for every test."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Before anything imports torch. The tests' layers are too small to share out, sums add up in the same order whatever else the
# machine does, and on busy cores threads that wait for each other take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

# Several hundred processes start in these tests. Where the environment forbids the files in which Python keeps what it has
# compiled, each of them would compile qle again, and pytest all tests.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""
sys.dont_write_bytecode = False

# No deadline: these tests share two cores with real decoders. The same examples every time, so that a red run can be repeated.
settings.register_profile("qle", deadline=None, max_examples=60, derandomize=True)
settings.register_profile("fast", settings.get_profile("qle"), max_examples=15)  # of make test-fast
settings.load_profile("qle")


SLOW_FILE = re.compile(r"^pytestmark = .*pytest\.mark\.slow", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out, files that are slow as a whole are not even imported: some need seconds for that alone."""
    is_left_out = "not slow" in config.option.markexpr and collection_path.suffix == ".py"
    return True if is_left_out and SLOW_FILE.search(collection_path.read_text()) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The command line on real videos first, short files last: otherwise processes that share the files end far apart."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        if "e2e" in item.path.parts:
            return 0
        return 1 if item.path in slow or "unit" not in item.path.parts else 2

    items.sort(key=rank)


CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder with the official numbers; tests skip where it does not exist at all."""
    folder = Path(os.environ.get("QLE_GOLDEN", CHECKOUT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden numbers at {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """The folder with the awkward clips; tests skip where it does not exist at all."""
    folder = Path(os.environ.get("QLE_VIDEOS", CHECKOUT.parent / "shared" / "videos"))
    if not folder.is_dir():
        pytest.skip(f"no test videos at {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_annotations() -> Path:
    """The folder with first rows of real annotation files; tests skip where it does not exist at all."""
    folder = Path(os.environ.get("QLE_ANNOTATIONS", CHECKOUT.parent / "shared" / "annotations"))
    if not folder.is_dir():
        pytest.skip(f"no annotation files at {folder}")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that take turns on a few small numbers cost more than they save."""
    import torch  # most tests need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
