"""Whose a run folder is."""

from pathlib import Path

import pytest
from accelerate import Accelerator

from qle.errors import InputError
from qle.train.folder import owned


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name() -> None:
    """/proc says "no such file", which is no condition of a disk and used to come out as a traceback."""
    expected = pytest.raises(InputError, match=r"cannot make the folder /proc/run: (?s:.*)name another --out")
    with expected, owned(Path("/proc/run"), Accelerator(cpu=True)):
        pass
