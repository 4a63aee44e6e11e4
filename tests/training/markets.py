"""Markets of known predictability, as data sets."""

from __future__ import annotations

import numpy as np

from volspike.datasets import Dataset, FeatureFacts
from volspike.features import Every, FeatureSet
from volspike.market import Profile

SECOND = 1_000_000_000
FEATURES = FeatureSet()


def market_of(rows: int, *, skill: float, seed: int = 0) -> Dataset:
    """``rows`` seconds in which the last minute's volatility predicts the next with ``skill`` (0: not at all)."""
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
