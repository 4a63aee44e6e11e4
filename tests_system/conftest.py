"""Fixtures of the tests against real processes: working folders with a market, a trained model, servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests_system.processes import Server, run_volspike, succeeded
from tests_system.served_market import FakeMarket, Served, chromium

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = Path(os.environ.get("VOLSPIKE_DATA", ROOT.parent / "shared" / "data"))
LONGEST = ("test_exactly_once", "test_limits", "test_chaos")
"""Modules in the order in which they start; the others follow in the order of their names."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shared_data: needs the recordings of ../shared/data or $VOLSPIKE_DATA")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests without their recordings, and assigns the others to workers of pytest-xdist.

    The tests of a module, and all tests of the shared broker, run in one worker, so that each fixture is made once.
    The longest modules start first.
    """
    if not RECORDINGS.is_dir():
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("shared_data")])
        items[:] = [item for item in items if not item.get_closest_marker("shared_data")]
    for item in items:
        shares_broker = "cluster" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("broker" if shares_broker else item.path.stem))
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; of a module, as it runs in an event loop that other modules must not be in."""
    with chromium() as started:
        yield started


@pytest.fixture
def served() -> Iterator[Served]:
    """A simulated market, served with the real page."""
    with Served(FakeMarket()) as running:
        yield running


@pytest.fixture
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A working folder whose ``../shared/data/coinbase`` holds the market that the test requests."""
    work, data = tmp_path / "work", tmp_path / "shared" / "data"
    work.mkdir()
    if request.param == "recorded":
        data.parent.mkdir()
        data.symlink_to(RECORDINGS)
    else:
        succeeded(run_volspike(work, "simulate", "--minutes", 150, "--out", data / "coinbase" / "ticks.ndjson"))
    return work


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``features.parquet`` and the models ``baseline`` and ``random_forest`` of a simulated market."""
    folder = tmp_path_factory.mktemp("trained")
    for command in (
        "simulate --minutes 50 --seed 3 --out tape.ndjson",
        "replay --raw tape.ndjson --out features.parquet --feature-set core --every 1s --add-labels",
        "train --features features.parquet --models baseline random_forest --split-method time_based",
    ):
        succeeded(run_volspike(folder, *command.split()))
    return folder


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers and ends them after the test."""
    started: list[Server] = []

    def start(folder: Path, *arguments: object, command: str = "serve", **variables: str | None) -> Server:
        started.append(Server(folder, *arguments, command=command, **variables))
        return started[-1]

    yield start
    for server in started:
        server.close()
