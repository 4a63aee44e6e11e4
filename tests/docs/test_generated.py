"""Generated pages match the code."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_generated_pages_are_up_to_date() -> None:
    """``make docs`` changes no page."""
    assert runpy.run_path(str(DOCS / "generate.py"))["stale"]() == []
