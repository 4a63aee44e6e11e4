"""The examples in docstrings."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import volspike

PACKAGE = Path(volspike.__file__).parent
MODULES = sorted(
    ".".join(("volspike", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text("utf-8") and path.stem != "__init__"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    """Each example of a module has the result that its docstring shows."""
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed
