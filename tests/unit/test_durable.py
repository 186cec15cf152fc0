"""Files that are written whole: what stands in /dev is written to, and stays what it is."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qle.durable import replace_file
from qle.errors import InputError
from qle.explain.page.report import write_report
from qle.extract.decode.write import write_video
from qle.outputs import write_text


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device that takes everything, as /dev/null is, which no failing test may harm."""
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices, and only root could replace them")
    return path


def test_a_device_is_never_replaced(device: Path) -> None:
    """`qle localize --report /dev/full`, called by root, put a page in the place of the device."""
    replace_file(device, b"x")
    write_text(device, "text")
    write_report(device, [], provenance={}, calibration={})
    with pytest.raises(OSError, match="ordinary file"):
        write_video(device, iter([np.zeros((32, 32, 3), np.uint8)]), 1.0)
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert os.listdir(device.parent) == ["null"]


def test_a_full_device_is_one_error(tmp_path: Path) -> None:
    full = tmp_path / "full"
    try:
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(InputError, match="full cannot be written: No space left on device"):
        write_text(full, "text")
    assert stat.S_ISCHR(full.lstat().st_mode)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.islink("/dev/stdout"), reason="needs /dev/stdout")
def test_results_can_be_sent_to_stdout_by_its_name() -> None:
    program = "from pathlib import Path; from qle.durable import replace_file; replace_file(Path('/dev/stdout'), b'x' * 100000)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=600, check=True)
    assert ended.stdout == b"x" * 100000
    assert os.path.islink("/dev/stdout")
