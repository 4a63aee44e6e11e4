"""Feature files of a small simulated market."""

from __future__ import annotations

from pathlib import Path

import pytest

from volspike.datasets.build import build_features, label_file
from volspike.features import Every, FeatureSet
from volspike.feeds.simulation.market import simulate_market
from volspike.tape import write_parquet

START = 1_760_000_000_000_000_000


@pytest.fixture(scope="session")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty minutes of two products."""
    path = tmp_path_factory.mktemp("tape") / "ticks.parquet"
    write_parquet(simulate_market(["BTC-USD", "ETH-USD"], 3000, 5, START), path, simulated=True)
    return path


@pytest.fixture(scope="session")
def features(tape: Path) -> Path:
    """The tape's features, labelled, a row per second."""
    path = tape.with_name("features.parquet")
    build_features([tape], path, FeatureSet((30, 60, 120)), Every.SECOND)
    label_file(path, path)
    return path
