"""Interrupts of the command while it starts and while it ends: one line and 130, no traceback, no death by the signal."""

import subprocess
import sys

import pytest

_INTERRUPT = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"
MOMENTS = {
    "imports": f"""
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            {_INTERRUPT}
sys.meta_path.insert(0, Finder())
""",
    "inside_exec": f"""
import qle.cli.app
class Version:
    def __str__(self):
        exec({_INTERRUPT!r})
qle.__version__ = Version()
""",
    "shutdown": f"""
def late():
    {_INTERRUPT}
atexit.register(late)
""",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_is_one_line_and_its_exit_code(moment: str) -> None:
    source = f"import atexit, sys\n{MOMENTS[moment]}\nfrom qle.__main__ import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", source, "--version"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "interrupted"), ended.stderr
    assert "Traceback" not in ended.stderr
