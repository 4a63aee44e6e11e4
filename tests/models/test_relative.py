"""Trees on inputs relative to the threshold τ: the same for every scale, and rising with recent volatility."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.samples import exported
from volspike.errors import UsageError
from volspike.labels import TAU
from volspike.models import Detector, Sample
from volspike.models.relative import COLUMNS, RETURNS, RISING, SCALE_FREE, VOLATILITIES, RelativeTrees

NAMES = (*VOLATILITIES, *RETURNS, *SCALE_FREE, TAU)


def market(rows: int, seed: int) -> Sample:
    """Rows of a market whose next minute is like the last one, with a hundredth of the values missing."""
    random = np.random.default_rng(seed)
    level = np.exp(random.normal(-0.7, 0.6, rows))
    tau = 1e-4 * np.exp(random.normal(0.0, 1.0, rows))
    columns = {name: tau * level * np.exp(random.normal(0.0, 0.3, rows)) for name in VOLATILITIES}
    columns |= {name: tau * level * random.normal(0.0, 5.0, rows) for name in RETURNS}
    columns |= {name: random.normal(1.0, 1.0, rows) for name in SCALE_FREE}
    x = np.column_stack([*columns.values(), tau])
    x[:, :-1][random.random((rows, len(columns))) < 0.01] = np.nan
    volatility = tau * level * np.exp(random.normal(0.0, 0.3, rows))
    y = (volatility >= tau).astype(np.int8)
    return Sample(NAMES, x, y, volatility, tau, np.ones(rows))


@cache
def learned() -> Detector:
    return RelativeTrees(settings={"rounds": 60, "learning_rate": 0.1}).fit(market(4000, 1))


def test_it_learns() -> None:
    """Spikes of rows it has not seen get higher probabilities than the rest, and their mean is the base rate."""
    sample = market(4000, 2)
    probability = learned().probability(sample.x)
    assert probability[sample.y == 1].mean() > 3 * probability[sample.y == 0].mean()
    assert probability.mean() == pytest.approx(sample.y.mean(), rel=0.2)


def test_the_graph_is_the_model() -> None:
    """ONNX Runtime gives the same probabilities, with missing and extreme values too."""
    x = market(2000, 3).x
    random = np.random.default_rng(4)
    x[random.random(x.shape) < 0.02] *= 1e12
    x[random.random(x.shape) < 0.02] = 0.0
    x[:, -1] = np.maximum(x[:, -1], 1e-9)
    served = exported(learned(), len(NAMES)).probability(x)
    np.testing.assert_allclose(served, learned().probability(x), atol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_the_scale_of_a_market_does_not_matter(factor: float) -> None:
    """Prices that move a million times as much, with τ as much higher, have bit-equal probabilities."""
    x = market(500, 5).x
    scaled = x.copy()
    scaled[:, : len(VOLATILITIES) + len(RETURNS)] *= factor
    scaled[:, -1] *= factor
    assert learned().probability(scaled).tobytes() == learned().probability(x).tobytes()


@pytest.mark.parametrize("name", RISING)
def test_more_recent_volatility_is_never_less_alarming(name: str) -> None:
    """Whatever the other inputs, the probability does not fall as a volatility of up to a minute rises."""
    x = np.repeat(market(40, 6).x, 25, axis=0)
    x[:, NAMES.index(name)] = np.tile(np.geomspace(1e-7, 1e-2, 25), 40)
    probability = learned().probability(x).reshape(40, 25)
    assert (np.diff(probability, axis=1) >= 0.0).all()


def test_a_higher_threshold_is_reached_less_often() -> None:
    """On average over rows; a single tree may say otherwise."""
    x = market(1000, 7).x
    mean = []
    for factor in (0.75, 1.0, 1.3):
        asked = x.copy()
        asked[:, -1] *= factor
        mean.append(learned().probability(asked).mean())
    assert mean[0] > mean[1] > mean[2]


@pytest.mark.parametrize("missing", [TAU, VOLATILITIES[0], SCALE_FREE[-1]])
def test_it_needs_all_its_columns(missing: str) -> None:
    """Without τ or an input it cannot be trained."""
    names = tuple(name for name in NAMES if name != missing)
    assert RelativeTrees.columns(names) == ()
    sample = market(100, 8)
    kept = [NAMES.index(name) for name in names]
    with pytest.raises(UsageError, match="τ of each row"):
        RelativeTrees().fit(dataclasses.replace(sample, names=names, x=sample.x[:, kept]))


def test_it_ignores_other_columns() -> None:
    """Sizes, quotes and amounts in the quote currency are not among its inputs."""
    offered = ("volume_ratio_10s", *NAMES[:-1], "quoted_spread_bps", TAU)
    assert set(RelativeTrees.columns(offered)) == {*COLUMNS, TAU}


def test_importance_is_a_share_of_each_column() -> None:
    """The shares sum to 1, and τ, which divides most inputs, has none of its own."""
    share: NDArray[np.float64] = learned().importance()
    assert share.sum() == pytest.approx(1.0)
    assert share[-1] == 0.0
