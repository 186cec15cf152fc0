"""The command `qle` and `python -m qle`: whoever interrupts it while it starts or ends gets one line, not a traceback.

Between these two the command line itself says what was interrupted (`ending.run`). Nothing is imported here that takes time.
"""

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED_EXIT = 130


def main() -> None:
    """Load the command line, then run it."""
    _open_closed_streams()
    _end_with_launcher()
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background jobs ignore it
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    from qle.cli.app import main as run

    try:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:  # before or behind the place where the command line expects it
        _leave()
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, _leave)
        signal.signal(signal.SIGTERM, _leave)
        # Python notes an interrupt that passed through exec (dataclasses are made by it), though it was caught later, and
        # would end by the signal instead of with our code; the next exec of a text forgets that.
        exec("")


def _open_closed_streams() -> None:
    """Where the caller has closed stdin, stdout or stderr (`qle ... >&-`) the null device takes its number: the next file that
    is opened would get it otherwise, and what is printed would be written into that file."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is the one that is missing
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - until the process ends


def _end_with_launcher() -> None:
    """First of all, since a launcher may be killed while the processes that it has started still load their libraries."""
    from qle.runtime import environment

    if environment("TORCHELASTIC_RUN_ID") is not None:
        from qle.children import end_with_parent

        end_with_parent()


def _leave(*_: object) -> NoReturn:
    """At once: an exception would come out of an import or of a shutdown that is half done. Nothing is in work then."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED_EXIT)


if __name__ == "__main__":
    main()
