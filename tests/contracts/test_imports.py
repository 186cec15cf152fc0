"""Imports run one way: no module reaches itself again, not even through an import inside a function."""

from graphlib import TopologicalSorter

import grimp


def test_there_are_no_cycles_of_imports() -> None:
    """A CycleError names the modules. Imports for types alone do not run, and do not count."""
    graph = grimp.build_graph("qle", exclude_type_checking_imports=True, cache_dir=None)
    order = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    order.prepare()
    assert len(graph.modules) > 1
