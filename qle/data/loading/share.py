"""What every loader of batches is told alike: which process it works for, where, and drawn from which seed. No torch.

Wrong numbers end with a ConfigError here, before anything is read.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qle.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of a training that one process has. All processes have the same seed, and together the batches of a single one."""

    seed: int
    device: "torch.device | str" = "cpu"
    """Where it computes with its batches."""
    shard: tuple[int, int] = (0, 1)
    """Number of the process and how many there are."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed}: expected 0 or more")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise ConfigError(f"shard {self.shard}: expected (index, count) with 0 <= index < count")

    @property
    def num_processes(self) -> int:
        return self.shard[1]


def check_start(epoch: int, first_batch: int, num_batches: int) -> None:
    """`num_batches`: of an epoch; from its end on there is nothing left, which is fine."""
    if epoch < 0 or not 0 <= first_batch <= num_batches:
        raise ConfigError(f"epoch {epoch}, batch {first_batch}: expected 0 or more, and at most {num_batches} batches")
