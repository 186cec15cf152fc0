"""`qle train-heads` in a process that kills itself after a step: python tests/train_until.py STEP train-heads ..."""

import os
import signal
import sys
from typing import TYPE_CHECKING

from qle.cli import train

if TYPE_CHECKING:
    from qle.train.progress import TrainStatus

FATAL_STEP = int(sys.argv.pop(1))


class FatalProgress(train.TrainProgress):
    """Progress that ends at once: nothing is flushed, closed or caught."""

    def update(self, status: "TrainStatus") -> None:
        if status.step >= FATAL_STEP:  # of several at once not every step is told
            os.kill(os.getpid(), signal.SIGKILL)
        super().update(status)


if __name__ == "__main__":
    train.TrainProgress = FatalProgress  # type: ignore[misc]
    from qle.cli.app import main

    main()
