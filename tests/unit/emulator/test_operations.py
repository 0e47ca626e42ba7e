"""What the documentation says of the emulator's operations."""

from __future__ import annotations

import ast
import functools

import pytest
from kit import ROOT

from himl_container.emulator.operations import all_routes, tables

_BEGIN, _END = "<!-- operations: begin -->", "<!-- operations: end -->"

ROUTES = all_routes()


@functools.cache
def _tests_of(path: str) -> frozenset[str]:
    """The functions of a module of tests, also those in classes."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_documented_tables_are_those_of_the_routes() -> None:
    text = (ROOT / "docs/emulator.md").read_text(encoding="utf-8")
    documented = text.partition(_BEGIN)[2].partition(_END)[0]
    wanted = tables(ROUTES)
    assert documented.strip() == wanted.strip(), "'himl-container emulator operations' prints the present tables"


@pytest.mark.parametrize("test", sorted({route.test for route in ROUTES}))
def test_each_named_test_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert name.partition("[")[0].split("::")[-1] in _tests_of(path)


def test_operations_have_names_and_what_is_approximated_is_said() -> None:
    for route in ROUTES:
        service, _, operation = route.operation.partition(".")
        assert service, route.pattern
        assert operation, route.pattern
        assert route.how == "imitated" or route.note, route.operation


def test_no_route_hides_another() -> None:
    """Two routes that answer the same words: the second would never be asked."""
    seen = set()
    for route in ROUTES:
        key = (route.host, route.method, route.pattern.lower())
        assert key not in seen, route.operation
        seen.add(key)
