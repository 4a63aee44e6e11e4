"""Pages made from the code are those that the code makes today."""

from __future__ import annotations

import runpy
from pathlib import Path

from volspike.features import FAMILIES, ROW_COLUMNS
from volspike.features.specification import LOOKS, ROW_MEANINGS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_made_pages_are_not_stale() -> None:
    """`make docs` would change nothing."""
    assert runpy.run_path(str(DOCS / "generate.py"))["stale"]() == []


def test_every_column_is_explained() -> None:
    """No family and no column of a row is without its sentence."""
    assert tuple(LOOKS) == tuple(family.name for family in FAMILIES)
    assert tuple(ROW_MEANINGS) == ROW_COLUMNS
