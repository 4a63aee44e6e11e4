"""Settings of the test run, and fixtures that several packages share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# One thread for linear algebra, here and in every process that a test starts: the workers of pytest-xdist use all cores
# already, and threads of OpenBLAS that wait for a core cost more than the small problems of the tests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("VOLSPIKE_DATA", ROOT.parent / "shared" / "data"))

# The suite draws the same examples in every run; `HYPOTHESIS_PROFILE=explore` draws many more at random.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shared_data: needs the recordings of ../shared/data or $VOLSPIKE_DATA")
    config.addinivalue_line("markers", "posix: needs signals, permissions or programs that Windows does not have")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests that need recordings or POSIX, where these are missing."""
    is_missing = {"shared_data": not SHARED.is_dir(), "posix": sys.platform == "win32"}
    for marker in (name for name, missing in is_missing.items() if missing):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker(marker)])
        items[:] = [item for item in items if not item.get_closest_marker(marker)]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings."""
    return SHARED
