"""A program that writes summaries and is killed in the middle: `python killed_summaries.py ANNOTATIONS OUT NUM_SUMMARIES`."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from qle.data.summaries.extractive import Extractive
from qle.data.summaries.generate import write_summaries
from qle.data.summaries.levels import LEVELS, Level, Summary


class Killed(Extractive):
    """Lives for so many summaries."""

    left = int(sys.argv[3])

    def summarise(self, sentences: Sequence[str], level: Level) -> Summary:
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().summarise(sentences, level)


if __name__ == "__main__":
    write_summaries(Path(sys.argv[1]), Path(sys.argv[2]), Killed(), tuple(LEVELS.values()))
