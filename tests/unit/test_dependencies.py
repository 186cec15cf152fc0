"""What is declared is what is used: no package is installed for nothing, and none is used that only happens to be there."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT = re.compile(r"^\s*(?:import|from) (\w+)", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _imported() -> set[str]:
    """The packages that any file of qle imports, anywhere in it, by the names under which they are installed."""
    modules = {
        name for path in (ROOT / "qle").rglob("*.py") for name in IMPORT.findall(path.read_text(encoding="utf-8"))
    }
    installed = packages_distributions()
    return {_name(name) for module in modules - {"qle"} for name in installed.get(module, ())}


def test_dependencies_are_the_packages_that_are_imported() -> None:
    assert {_name(line) for line in PROJECT["dependencies"]} == _imported()


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"].keys() - {"dev"}))
def test_an_extra_is_for_a_package_that_is_looked_for(extra: str) -> None:
    """By name, since it may be missing."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "qle").rglob("*.py"))
    for line in PROJECT["optional-dependencies"][extra]:
        assert f'"{_name(line)}"' in source or f'"{_name(line).replace("-", "_")}"' in source, line


def test_every_dependency_is_pinned() -> None:
    pinned = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    declared = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert sorted({_name(line) for line in declared} - pinned) == []
