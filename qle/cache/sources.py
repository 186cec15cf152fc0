"""Which bytes a video is: a fingerprint that costs two reads, so that a changed file is noticed before and after a run."""

import os
from pathlib import Path
from stat import S_ISREG

import xxhash

from qle.errors import InputError
from qle.types import SourceFingerprint

EDGE_BYTES = 1 << 20


def fingerprint(path: Path) -> SourceFingerprint:
    """Size, modification time, and the hash of the first and the last MiB (the whole file where it is shorter than both)."""
    try:
        if not S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise InputError(f"{path} is no file: a folder, pipe or device stands there")
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            digest = xxhash.xxh3_128(file.read(EDGE_BYTES))
            file.seek(max(EDGE_BYTES, stat.st_size - EDGE_BYTES))
            digest.update(file.read(EDGE_BYTES))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    return SourceFingerprint(size=stat.st_size, mtime_ns=stat.st_mtime_ns, edge_hash=digest.hexdigest())
