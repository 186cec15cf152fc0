"""Deleting a video so that at every moment it is there or not, never half: out of its place by a rename, then away."""

import secrets
from pathlib import Path

from qle.cache.handles import make_folder, remove, rename
from qle.cache.layout import TMP
from qle.cache.leftovers import REMOVED


def remove_folder(space: Path, folder: Path) -> None:
    """Delete the folder of a video or pack that someone else may be deleting too; of a link the link alone."""
    aside = space / TMP / f"{REMOVED}{secrets.token_hex(8)}"
    try:
        make_folder(space, aside.parent)
        rename(space, folder, aside)
    except FileNotFoundError:
        return
    remove(space, aside)
