"""Interrupts of the command while it starts and while it ends: one line and 130, no traceback, no death by the signal."""

import subprocess
import sys

import pytest

from tests.running import HEARS_CTRL_C

_INTERRUPT = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(30)"
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
    source = f"{HEARS_CTRL_C}import atexit, sys\n{MOMENTS[moment]}\nfrom qle.__main__ import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", source, "--version"], capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "interrupted"), ended.stderr
    assert "Traceback" not in ended.stderr


def test_started_with_interrupts_ignored_it_works_on() -> None:
    """As a background job of a script is: Ctrl-C in the terminal is meant for the job in front. SIGTERM still ends it."""
    source = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import qle.cli.app
class Version:
    def __str__(self):
        os.kill(os.getpid(), signal.SIGINT)
        print("works on", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        return "not ended"
qle.__version__ = Version()
from qle.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", source, "--version"], capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "works on\n", "interrupted\n")
