"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("VOLSPIKE_DATA", ROOT.parent / "shared" / "data"))

# The suite finds the same every time; `HYPOTHESIS_PROFILE=explore` looks further.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shared_data: needs the recordings of ../shared/data or $VOLSPIKE_DATA")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where the recordings are not, their tests are left out and counted as deselected; the others stand alone."""
    if SHARED.is_dir():
        return
    absent = [item for item in items if item.get_closest_marker("shared_data")]
    items[:] = [item for item in items if not item.get_closest_marker("shared_data")]
    config.hook.pytest_deselected(items=absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings."""
    return SHARED
