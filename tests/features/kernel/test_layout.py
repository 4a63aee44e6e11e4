"""The layout of the kernel's arrays and its package: they fit the schema, the state and the cache."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from volspike.features import ROW_FLOATS, catalogue, schema
from volspike.features.kernel import layout
from volspike.features.state import EngineState

KERNEL = Path(layout.__file__).parent
MODULES = sorted(KERNEL.glob("*.py"))


def test_the_columns_are_those_of_the_schema() -> None:
    """As many families, other columns and features by second as the schema names."""
    assert len(schema.FAMILIES) == layout.FAMILY_COUNT
    assert len(ROW_FLOATS) == layout.OUT_FEATURES
    assert len(catalogue.BY_SECOND) == layout.BY_SECOND_COUNT
    assert len(catalogue.LEADER) == layout.LEADER_COUNT
    assert len(catalogue.LAGGED) == 2 * layout.LAGS


def test_arrays_are_passed_in_the_order_of_the_state() -> None:
    """The engine's arrays come in the order of the fields of ``State``."""
    state = EngineState(3, 300, keeps_hours=True, capacity=1)
    names = layout.State._fields[: len(state.arrays())]
    for name, array in zip(names, state.arrays(), strict=True):
        assert array is getattr(state, name)


@pytest.mark.parametrize(
    ("first", "columns"),
    [
        ("PRICE", "RECORD_COLUMNS"),
        ("EW_RETURN", "EW_COUNT"),
        ("SECOND", "CLOCK_COLUMNS"),
        ("MARK_TIME", "MARK_COLUMNS"),
        ("OUT_PRICE", "OUT_FEATURES"),
    ],
)
def test_columns_do_not_overlap(first: str, columns: str) -> None:
    """From an array's first column to their number, the column numbers ascend."""
    names = [name for name in vars(layout) if name.isupper()]
    numbers = [vars(layout)[name] for name in names[names.index(first) : names.index(columns) + 1]]
    assert numbers[0] == 0
    assert (np.diff(numbers) > 0).all()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_the_kernel_uses_no_code_outside_of_its_package(module: Path) -> None:
    """Kernel modules import nothing of volspike but each other, so the digest of the cache covers all their code."""
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    ours = {name for name in imported if name.startswith("volspike")}
    assert {name for name in ours if not name.startswith("volspike.features.kernel.")} <= {"volspike.compiled"}


def test_the_kernel_is_imported_with_the_first_engine() -> None:
    """Readers of the schema do not import the compiled kernel; the first engine does."""
    code = (
        "import sys, volspike.features; assert 'volspike.features.kernel.step' not in sys.modules; "
        "volspike.features.FeatureEngine(); assert 'volspike.features.kernel.step' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  our own program
