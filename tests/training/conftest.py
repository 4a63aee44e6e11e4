"""Data sets of markets of known predictability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.training.markets import market_of

from volspike.datasets import Dataset
from volspike.training.request import TrainingRequest

MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="session")
def make_dataset() -> MakeDataset:
    """``rows`` seconds in which the last minute's volatility predicts the next with ``skill`` (0: not at all)."""
    return market_of


@pytest.fixture(scope="session")
def market(make_dataset: MakeDataset) -> Dataset:
    """9000 seconds in which features predict spikes."""
    return make_dataset(9000, skill=1.0)


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., TrainingRequest]:
    """A request with the given changes, whose artifacts go to the test's folder."""
    plain = TrainingRequest(
        features=Path("features.parquet"), models=("logistic",), artifacts=tmp_path / "artifacts", folds=2, search=0
    )
    return lambda **changes: replace(plain, **changes)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred resamples per interval: these tests do not check its width."""
    monkeypatch.setattr("volspike.training.evaluate.RESAMPLES", 100)
