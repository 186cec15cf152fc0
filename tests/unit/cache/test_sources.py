import os

import pytest

from qle.cache.sources import EDGE_BYTES, fingerprint
from qle.errors import InputError


def test_every_byte_at_the_edges_counts(tmp_path):
    path = tmp_path / "video.mp4"
    data = bytearray(os.urandom(3 * EDGE_BYTES))
    path.write_bytes(data)
    before = fingerprint(path)
    assert before.size == len(data)
    assert before == fingerprint(path)
    for place in (0, EDGE_BYTES - 1, 2 * EDGE_BYTES, len(data) - 1):
        data[place] ^= 1
        path.write_bytes(data)
        assert fingerprint(path).edge_hash != before.edge_hash
        data[place] ^= 1


@pytest.mark.parametrize("size", [0, 1, EDGE_BYTES, EDGE_BYTES + 1])
def test_short_files_are_hashed_whole(tmp_path, size):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"a" * size)
    first = fingerprint(path)
    assert first.size == size
    if size:
        path.write_bytes(b"a" * (size - 1) + b"b")
        assert fingerprint(path).edge_hash != first.edge_hash


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(InputError, match=r"absent\.mp4 cannot be read"):
        fingerprint(tmp_path / "absent.mp4")
