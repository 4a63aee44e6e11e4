"""Generated pages match the code."""

from __future__ import annotations

import runpy
from pathlib import Path

from volspike.features import FAMILIES, ROW_COLUMNS
from volspike.features.specification import LOOKS, ROW_MEANINGS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_generated_pages_are_up_to_date() -> None:
    """``make docs`` changes no page."""
    assert runpy.run_path(str(DOCS / "generate.py"))["stale"]() == []


def test_every_column_is_explained() -> None:
    """Every feature family and every other column of a row has a description."""
    assert tuple(LOOKS) == tuple(family.name for family in FAMILIES)
    assert tuple(ROW_MEANINGS) == ROW_COLUMNS
