"""The process of the command: interrupts while it starts and while it ends, and streams that are closed, full or broken."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_is_one_line_and_its_exit_code(moment: str) -> None:
    source = f"{HEARS_CTRL_C}import atexit, sys\n{MOMENTS[moment]}\nfrom qle.__main__ import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", source, "--version"], capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "interrupted"), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
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


NO_CACHE = "cache inspect nothing"
STREAMS = [
    ("--help >&-", 0, ""),
    (f"{NO_CACHE} >&- <&-", 3, "error: nothing does not exist"),
    (f"{NO_CACHE} >&- 2>&-", 3, ""),
    (f"{NO_CACHE} 2>/dev/full", 3, ""),
    ("nocommand 2>/dev/full", 2, ""),
    ("--help >/dev/full", 3, "error: writing failed: No space left on device"),
    ("--help | true", 141, ""),
    ("--version | true", 141, ""),
]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("line", "code", "said"), STREAMS, ids=[line for line, _, _ in STREAMS])
def test_streams_that_are_closed_full_or_broken_are_no_bugs(line: str, code: int, said: str, tmp_path: Path) -> None:
    qle = f"{shlex.quote(sys.executable)} -m qle"
    script = f"{qle} {line}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith(said)
    assert len(ended.stderr.splitlines()) == (2 if said else 0), ended.stderr


@pytest.mark.slow
def test_nothing_is_written_into_a_file_that_took_the_place_of_stdout(tmp_path: Path) -> None:
    """With stdout closed, the first file that is opened would be number 1, where libraries print to."""
    source = (
        "import os, sys; from qle.__main__ import _open_closed_streams; _open_closed_streams();"
        "file = open('data', 'wb'); os.write(1, b'noise'); print('more'); sys.exit(file.fileno() < 3)"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(source)} >&- 2>&- <&-"
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, timeout=60).returncode == 0
    assert (tmp_path / "data").read_bytes() == b""
