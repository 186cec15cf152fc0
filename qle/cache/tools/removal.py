"""Deleting a video so that at every moment it is there or not, never half: out of its place by a rename, then away."""

import os
import secrets
from pathlib import Path

from qle.cache.layout import TMP
from qle.durable import remove_tree

REMOVED = "removed-"
"""How names of folders begin, in tmp/, that are on their way out; a killed deletion leaves them to `prune`."""


def remove_folder(space: Path, folder: Path) -> None:
    """Delete the folder of a video or pack that someone else may be deleting too."""
    aside = space / TMP / f"{REMOVED}{secrets.token_hex(8)}"
    try:
        aside.parent.mkdir(exist_ok=True)
        os.rename(folder, aside)
    except FileNotFoundError:
        return
    remove_tree(aside)
