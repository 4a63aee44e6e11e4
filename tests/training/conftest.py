"""Data sets of markets of known predictability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from volspike.datasets import Dataset, FeatureFacts
from volspike.features import Every, FeatureSet
from volspike.market import Profile
from volspike.training.request import TrainingRequest

SECOND = 1_000_000_000
FEATURES = FeatureSet()

MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="session")
def make_dataset() -> MakeDataset:
    """``rows`` seconds in which the last minute's volatility predicts the next with ``skill`` (0: not at all)."""

    def make(rows: int, *, skill: float, seed: int = 0) -> Dataset:
        random = np.random.default_rng(seed)
        regime = np.repeat(random.normal(size=rows // 60 + 1), 60)[:rows]
        x = random.normal(size=(rows, len(FEATURES.names)))
        persistence = np.exp(skill * regime + 0.3 * random.normal(size=rows) - 9)
        x[:, FEATURES.names.index("realized_volatility_60s")] = persistence
        x[:, FEATURES.names.index("spread_mean_60s")] += skill * regime
        return Dataset(
            facts=FeatureFacts(
                digest=FEATURES.digest,
                windows=FEATURES.windows,
                every=Every.SECOND,
                profile=Profile.TICKER,
                simulated=True,
            ),
            products=("BTC-USD",),
            time=1_764_979_200 * SECOND + np.arange(rows, dtype=np.int64) * SECOND,
            product=np.zeros(rows, np.int32),
            session=np.zeros(rows, np.int64),
            names=FEATURES.names,
            x=x,
            future_volatility=np.exp(regime + 0.2 * random.normal(size=rows) - 9),
            tau=np.full(rows, np.nan),
            persistence=persistence,
        )

    return make


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
