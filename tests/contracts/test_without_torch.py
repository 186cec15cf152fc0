"""Folders that work without torch: everything in them is imported in a process of its own, which is then looked into.

So that plans, inspection, annotations, metrics and error messages are fast, and run where no torch is installed.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

FOLDERS = {
    "cache": (), "cli": (), "segments": (), "synthetic": (), "extract/decode": (),
    "data": ("summaries/language_model",),
    "eval": ("run",),
    "runs": ("load",),
}  # fmt: skip
"""Folder below qle, with all below it -> the modules in it that may import torch: they run or load something trained."""
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = {"torch", "transformers"} & set(sys.modules)
    if heavy:
        sys.exit(f"{name} imports {', '.join(sorted(heavy))}")
"""


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_no_torch(folder: str) -> None:
    root = CHECKOUT / "qle" / folder
    allowed = {root / f"{name}.py" for name in FOLDERS[folder]}
    names = [name_of(path) for path in sorted(root.rglob("*.py")) if path not in allowed]
    assert names
    line = [sys.executable, "-c", PROGRAM, *names]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=CHECKOUT)
    assert ended.returncode == 0, ended.stderr


def name_of(path: Path) -> str:
    inside = path.relative_to(CHECKOUT).with_suffix("")
    return ".".join(inside.parts).removesuffix(".__init__")
