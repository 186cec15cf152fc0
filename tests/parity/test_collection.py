"""A collection of official numbers is read whole: it names systems that the tests know, and they read every case of those."""

from pathlib import Path

import pytest

from tests.golden_sets import READERS, case_files, folder, golden_sets, kind_of, read_config, sets_of, tensor_names


@pytest.mark.skipif(not folder().is_dir(), reason=f"no golden numbers at {folder()}")
def test_a_set_of_a_known_system_is_there() -> None:
    names = sorted(path.name for path in folder().iterdir())
    assert sets_of(*READERS), f"{folder()} holds {names or 'nothing'}; known are {sorted(READERS)}"


@golden_sets(*(kind for kind, tensors in READERS.items() if tensors))
def test_every_case_is_one_that_a_test_reads(golden_set: Path) -> None:
    """So that a set without cases, or one with cases of a new kind, does not pass unread."""
    assert read_config(golden_set)
    cases, readers = case_files(golden_set), READERS[str(kind_of(golden_set.name))]
    assert cases, f"no cases in {golden_set}"
    unread = [path.name for path in cases if not tensor_names(path) & set(readers)]
    assert not unread


@pytest.mark.parametrize(
    ("name", "kind"),
    [("qd-detr", "qd-detr"), ("qd-detr-audio", "qd-detr"), ("qle-evidential", "qle"), ("qled", None), ("moment", None)],
)
def test_sets_are_known_by_the_beginning_of_their_name(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind
