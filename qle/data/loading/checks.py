"""What every loader of batches is asked alike: from where on in an epoch, for which process, drawn from which seed. No torch.

Wrong numbers end with a ConfigError here, before anything is read.
"""

from qle.errors import ConfigError


def check_start(epoch: int, first_batch: int, num_batches: int) -> None:
    """`num_batches`: of an epoch; from its end on there is nothing left, which is fine."""
    if epoch < 0 or not 0 <= first_batch <= num_batches:
        raise ConfigError(f"epoch {epoch}, batch {first_batch}: expected 0 or more, and at most {num_batches} batches")


def check_share(seed: int, shard: tuple[int, int]) -> None:
    """`shard`: number of the process and how many there are."""
    if seed < 0:
        raise ConfigError(f"seed {seed}: expected 0 or more")
    if not 0 <= shard[0] < shard[1]:
        raise ConfigError(f"shard {shard}: expected (index, count) with 0 <= index < count")
