"""Names say what a thing is: no two classes share one, and words that fit everything are no names."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import qle

WORDS = {"found", "one", "place", "places"}


def test_no_two_classes_share_a_name() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(path.name)
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_variables_are_called_by_words_of_the_domain() -> None:
    """Variables, parameters and functions. Attributes are left out: some are names of tensors in the files of runs."""
    vague = [f"{path.name}:{line} {name}" for path, tree in trees() for line, name in names(tree) if name in WORDS]
    assert vague == []


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    """Every file of the package, parsed."""
    return tuple((path, ast.parse(path.read_text())) for path in sorted(Path(qle.__file__).parent.rglob("*.py")))


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
