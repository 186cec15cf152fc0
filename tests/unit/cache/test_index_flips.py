"""The index is a cache of the records: whatever it says, no good video is deleted or made again for it."""

import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qle.cache import index as index_module
from qle.cache.index import INDEX_FILE, load_index
from qle.cache.reader import Space
from qle.cache.records import SourceFacts
from qle.cache.sources import fingerprint
from qle.cache.spaces import SpaceFolder, create_space
from qle.cache.states import states
from qle.cache.tools.inspect import inspect_cache
from qle.cache.tools.prune import KINDS, plan_prune
from qle.cache.writer import VideoWriter
from qle.errors import QleError
from qle.types import VideoSource
from tests.file_operations import Operations
from tests.running import here
from tests.tiny_cache import fill, run, tiny_plan, tiny_spec, tiny_values

pytestmark = pytest.mark.slow

KEYS = [f"{number}.mp4" for number in range(4)]


@pytest.fixture
def space(tmp_path: Path) -> SpaceFolder:
    space = create_space(tmp_path / "cache", tiny_spec())
    for key in KEYS:
        (tmp_path / key).write_bytes(key.encode())
        source = SourceFacts(path=str(tmp_path / key), fingerprint=fingerprint(tmp_path / key))
        with VideoWriter.open(space, key, tiny_plan(3), source, durability="none") as writer:
            fill(writer, tiny_values(3))
            writer.commit()
    load_index(space)
    return space


def _states(space: SpaceFolder) -> set[str]:
    return {
        it.state for it in states(space, [VideoSource(key=key, path=space.path.parent.parent / key) for key in KEYS])
    }


def test_every_flipped_bit_is_noticed(space: SpaceFolder) -> None:
    """80 of 3,000 flips changed states, and 4 ended every extraction with a traceback."""
    content = bytearray((space.path / INDEX_FILE).read_bytes())
    whole = index_module._unsealed(bytes(content))
    for place in range(len(content)):
        content[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="digest"):
            index_module._unsealed(bytes(content))
        content[place] ^= 1 << place % 8
    assert index_module._unsealed(bytes(content)) == whole


@pytest.mark.parametrize("place", [5, 700, -300, -6])
def test_an_index_that_is_not_as_it_was_written_is_made_anew(space: SpaceFolder, place: int) -> None:
    path = space.path / INDEX_FILE
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)
    assert sorted(load_index(space).texts("key")) == KEYS
    assert _states(space) == {"done"}


def test_other_readers_of_parquet_open_it(space: SpaceFolder) -> None:
    assert sorted(pq.read_table(space.path / INDEX_FILE)["key"].to_pylist()) == KEYS


@pytest.mark.parametrize(
    "column", [{"problem": "it is bad"}, {"source_size": 1}, {"file_sizes": [1] * 20}, {"name": "elsewhere.zarr"}]
)
def test_before_a_verdict_the_records_are_read(space: SpaceFolder, column: dict[str, object]) -> None:
    """One flipped bit made `prune --damaged --yes` delete every good video. Here even the digest fits, as a stranger's would."""
    table = pq.read_table(space.path / INDEX_FILE)
    rows = [row | column for row in table.to_pylist()]
    sink = pa.BufferOutputStream()
    about = json.loads(table.schema.metadata[b"qle_index"])
    schema = table.schema.with_metadata({b"qle_index": json.dumps(about).encode()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    (space.path / INDEX_FILE).write_bytes(index_module._sealed(sink.getvalue().to_pybytes()))
    kinds = [kind for kind in KINDS if kind != "space"]
    assert plan_prune(space.path.parent, kinds=kinds) == []
    assert _states(space) == {"done"}


def _verdicts(space: SpaceFolder) -> dict[str, int]:
    """Every command that looks at the index or at what it says, and the exit code of each. None of them writes."""
    root = space.path.parent
    commands = {
        "verify": ("cache", "verify", root),
        "inspect": ("cache", "inspect", root),
        "prune": ("cache", "prune", root, "--damaged", "--stale", "--orphaned", "--yes"),
    }
    return {name: here(*words).returncode for name, words in commands.items()}


def _check_flips(space: SpaceFolder, num_flips: int, seed: int) -> None:
    """Flip one bit after the other in a file whose folders nobody would list again."""
    path, rng = space.path / INDEX_FILE, random.Random(seed)
    _age(space)
    content = path.read_bytes()
    for _ in range(num_flips):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert _states(space) == {"done"}
        assert path.read_bytes() != flipped, "it is made anew"
        path.write_bytes(flipped)
        assert plan_prune(space.path.parent, kinds=["damaged", "stale", "orphaned", "duplicates"]) == []
        assert inspect_cache(space.path.parent).spaces[0].states["done"] == len(KEYS)


def _age(space: SpaceFolder) -> None:
    """As it is an hour after the last commit: the index is believed without a look at the folders."""
    for shelf in (space.path / "videos").iterdir():
        os.utime(shelf, ns=(1, 1))
    load_index(space)


@pytest.mark.slow
def test_flipped_bits_of_the_index_change_no_verdict(space: SpaceFolder) -> None:
    _check_flips(space, 20, seed=0)


@pytest.mark.faults
def test_a_thousand_flipped_bits_of_the_index_change_no_verdict(space: SpaceFolder) -> None:
    """80 of 3,000 changed states, 4 ended every `extract` with 1, and one made `prune --damaged` delete every good video."""
    _check_flips(space, 1000, seed=1)


@pytest.mark.parametrize("seed", range(4))
def test_commands_delete_nothing_for_a_flipped_index(space: SpaceFolder, seed: int) -> None:
    path, rng = space.path / INDEX_FILE, random.Random(seed)
    _age(space)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    assert _verdicts(space) == {"verify": 0, "inspect": 0, "prune": 0}
    assert _states(space) == {"done"}
    assert len(Space(space)) == len(KEYS)


def test_a_pipe_or_a_link_in_place_of_the_index_is_nobodys_loss(space: SpaceFolder, tmp_path: Path) -> None:
    path = space.path / INDEX_FILE
    path.unlink()
    os.mkfifo(path)
    assert _states(space) == {"done"}
    path.unlink()
    (tmp_path / "home").write_text("precious")
    path.symlink_to(tmp_path / "home")
    assert load_index(space).texts("problem") == [""] * len(KEYS)
    assert (tmp_path / "home").read_text() == "precious"


FOUND_SOMETHING, HAD_ENDED = 40, 41


def _plan_with_a_fault(root: Path, fault: str, number: int) -> None:
    operations = Operations(root, fault, number)
    operations.watch()
    try:
        items = plan_prune(root, kinds=("damaged", "stale", "orphaned", "duplicates"), deep=True)
    except (QleError, OSError):
        return
    if items:
        os._exit(FOUND_SOMETHING)
    if len(operations.names) <= number:
        os._exit(HAD_ENDED)


@pytest.mark.parametrize("fault", ["EIO", "EMFILE"])
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.faults)])
def test_a_disk_that_does_not_answer_proves_nothing(space: SpaceFolder, fault: str, step: int) -> None:
    """A record that could not be read once stood in the index as damaged from then on, and `prune --damaged` took the video."""
    root, number = space.path.parent, 0
    while True:
        (space.path / INDEX_FILE).unlink(missing_ok=True)
        code = run(_plan_with_a_fault, root, fault, number)
        assert code in (0, HAD_ENDED), number
        assert _states(space) == {"done"}
        if code == HAD_ENDED:
            break
        number += step
    assert number > 30
