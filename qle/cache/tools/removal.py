"""Deleting a video so that at every moment it is there or not, never half: out of its place by a rename, then away."""

import os
import secrets
from pathlib import Path

from qle.cache.layout import TMP
from qle.cache.leftovers import REMOVED
from qle.cache.spaces import refuse_links
from qle.durable import remove_tree


def remove_folder(space: Path, folder: Path) -> None:
    """Delete the folder of a video or pack that someone else may be deleting too; of a link the link alone."""
    refuse_links(folder.parent)
    aside = space / TMP / f"{REMOVED}{secrets.token_hex(8)}"
    try:
        aside.parent.mkdir(exist_ok=True)
        os.rename(folder, aside)
    except FileNotFoundError:
        return
    remove_tree(aside) if not aside.is_symlink() else aside.unlink()
