"""Names and docstrings of the package, read with ast alone: nothing is imported, so this takes a second."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import CHECKOUT

PACKAGE = CHECKOUT / "qle"
NO_SENTENCE = ("Of ", "See the head")
"""Beginnings of docstrings that say nothing to someone who has not seen the code: "Of each with each.\""""

NO_NAMES = {"found", "one", "place", "places"}
"""Words that fit everything, and so tell nothing of what a variable holds."""


@cache
def trees() -> dict[Path, ast.Module]:
    """Every file of the package, parsed once and by the one process that runs these tests."""
    return {path.relative_to(CHECKOUT): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def docstrings(body: list[ast.stmt], name: str) -> Iterator[tuple[str, str]]:
    """(what it describes, text) of every string that stands as a statement: docstrings, and those below fields and constants."""
    for before, statement in zip([None, *body], body, strict=False):
        if (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        ):
            target = (
                before.target
                if isinstance(before, ast.AnnAssign)
                else before.targets[0]
                if isinstance(before, ast.Assign)
                else None
            )
            yield f"{name}.{target.id}" if isinstance(target, ast.Name) else name, statement.value.value.strip()
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            yield from docstrings(statement.body, f"{name}.{statement.name}")


def is_public(name: str) -> bool:
    return not any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_two_classes_never_share_a_name() -> None:
    modules = defaultdict(list)
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(str(path))
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_variables_are_called_by_words_of_the_domain() -> None:
    """Variables, parameters and functions. Attributes are left out: some are names of tensors in the files of runs."""
    vague = [
        f"{path}:{line} {name}" for path, tree in trees().items() for line, name in names(tree) if name in NO_NAMES
    ]
    assert vague == []


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Everything that is given a name in a file, but for fields of classes."""
    fields = {id(field.target) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for field in node.body
              if isinstance(field, ast.AnnAssign)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef):
            yield node.lineno, node.name


def test_docstrings_of_public_names_are_sentences_that_stand_alone() -> None:
    texts = [
        (f"{path}:{name}", text)
        for path, tree in trees().items()
        for name, text in docstrings(tree.body, "")
        if is_public(name)
    ]
    assert [f"{name}: {text}" for name, text in texts if text.startswith(NO_SENTENCE)] == []


def test_the_docstring_of_a_folder_lists_its_parts() -> None:
    """Whoever opens the `__init__.py` of a folder sees what lies in it and where to begin, and finds all that is listed."""
    for path, tree in trees().items():
        if path.name == "__init__.py":
            text = ast.get_docstring(tree) or ""
            there = parts(CHECKOUT / path.parent)
            assert [part for part in there if part not in text] == [], path
            listed = re.findall(r"^([a-z0-9_]+\.py)((?:, [a-z0-9_]+\.py)*)", text, re.M)
            assert {name for names in listed for name in "".join(names).split(", ")} - there == set(), path


def parts(folder: Path) -> set[str]:
    """Names of the modules and subpackages of a folder; those of subpackages end with a slash."""
    files = {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}
    return files | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
