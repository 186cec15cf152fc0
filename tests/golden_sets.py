"""Which official numbers a collection holds: its sets by the system that they are of, and the cases of each by what they hold.

    $QLE_GOLDEN/SET/{config.json, weights.safetensors, case-*.safetensors} -> golden_sets(KIND), golden_cases(KIND, has=...)

Collections differ in sizes, options, seeds, names of cases and sets, so nothing of that stands in a test. A set is of a system
where its name is that of the system, or goes on behind it with a hyphen (`qd-detr-audio`). Without the folder everything skips; a
folder that names nothing known, and a case that nothing reads, fail in tests/parity/test_collection.py.
"""

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

READERS = {
    "moment-detr": ("out.pred_logits", "out.post"),
    "qd-detr": ("out.pred_logits",),
    "cg-detr": ("out.pred_logits",),
    "mesm": ("out.pred_logits",),
    "qle": ("out.raw_logit",),
    "tmass": ("out.pooled", "out.similarity", "out.correct_similarity"),
    "m2crl": ("out.patch",),
    "qvh-eval": (),
    "charades-eval": ("out.tiou",),
}
"""Systems that the tests know, and of their cases the tensors of which each has one."""
ROUNDING = 0.011
"""Official numbers of QVHighlights have two decimals, and another order of a sum may move the last."""


def folder() -> Path:
    """The collection; it need not exist."""
    return Path(os.environ.get("QLE_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden"))


def kind_of(name: str) -> str | None:
    """The system that a set is of; None for what the tests do not know."""
    kinds = [kind for kind in READERS if name == kind or name.startswith(f"{kind}-")]
    return max(kinds, key=len) if kinds else None


def sets_of(*kinds: str) -> list[Path]:
    """The folders of all sets of these systems."""
    if not folder().is_dir():
        return []
    return sorted(path for path in folder().iterdir() if path.is_dir() and kind_of(path.name) in kinds)


def case_files(golden_set: Path) -> list[Path]:
    return sorted(golden_set.glob("case-*.safetensors"))


@cache
def tensor_names(path: Path) -> frozenset[str]:
    """Names of the tensors of a case; nothing else of the file is read."""
    with safe_open(path, "np") as file:
        return frozenset(file.keys())


def read_config(golden_set: Path) -> dict[str, Any]:
    return json.loads((golden_set / "config.json").read_text())


def golden_sets(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test with every set of these systems as `golden_set`."""
    return pytest.mark.parametrize("golden_set", [pytest.param(path, id=path.name) for path in sets_of(*kinds)])


def golden_cases(*kinds: str, has: Sequence[str] = (), lacks: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Runs a test with the path of every case of these systems as `golden_case`: of those that hold a tensor whose name begins as
    each of `has` says, and none that begins as one of `lacks` says."""
    chosen = []
    for golden_set in sets_of(*kinds):
        for path in case_files(golden_set):
            names = tensor_names(path)
            found, unwanted = (
                [any(name.startswith(start) for name in names) for start in starts] for starts in (has, lacks)
            )
            if all(found) and not any(unwanted):
                chosen.append(pytest.param(path, id=f"{golden_set.name}/{path.stem.removeprefix('case-')}"))
    return pytest.mark.parametrize("golden_case", chosen)


def evaluations(name: str) -> pytest.MarkDecorator:
    """Runs a test with every case of the official program of QVHighlights as `name`."""
    return pytest.mark.parametrize(name, [pytest.param(case, id=case.name) for case in all_evaluations()])


def all_evaluations() -> list["Evaluation"]:
    """Every case of that program."""
    return [
        Evaluation(golden_set, case)
        for golden_set in sets_of("qvh-eval")
        for case in json.loads((golden_set / "cases.json").read_text())
    ]


@dataclass(frozen=True)
class Evaluation:
    """Files of one case: what is true, what was said, what the official program printed."""

    folder: Path
    case: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.case['name']}"

    @property
    def truth(self) -> list[dict[str, Any]]:
        return self._rows("ground_truth")

    @property
    def said(self) -> list[dict[str, Any]]:
        return self._rows("predictions")

    @property
    def expected(self) -> dict[str, Any]:
        """`{"error": ...}` where the program stops."""
        return json.loads((self.folder / self.case["metrics"]).read_text())

    @property
    def match_number(self) -> bool:
        return bool(self.case["match_number"])

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        path = self.folder / self.case[kind]
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [json.loads(line) for line in text.splitlines() if line.strip()]
