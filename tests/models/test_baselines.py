"""The baselines: each ranks rows by its documented quantity."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.samples import chosen, exported, fitted, full_sample, learned
from volspike.labels import TAU
from volspike.models import DETECTORS

volatilities = st.floats(0.0, 1.0, width=32)


@pytest.mark.parametrize(
    ("name", "column"),
    [("persistence", "realized_volatility_60s"), ("ewma_30", "ewma_volatility_30s"), ("ewma", None), ("garch", None)],
)
@given(first=volatilities, second=volatilities)
def test_more_volatility_is_never_less_likely_a_spike(
    name: str, column: str | None, first: float, second: float
) -> None:
    """The order of two volatilities is that of their probabilities, however far they are from those of training."""
    sample, detector = learned(name)
    place = sample.names.index(column or sample.names[int(detector.importance().argmax())])
    rows = np.repeat(sample.x[:1], 2, axis=0)
    rows[:, place] = first, second
    less, more = detector.probability(rows)
    assert (less <= more) if first <= second else (less >= more)


def test_persistence_rises_even_against_the_data() -> None:
    """Where calm minutes are those before a spike, the curve still rises."""
    sample = chosen("persistence", full_sample(800, 2))
    reversed_ = dataclasses.replace(sample, y=(1 - sample.y).astype(np.int8))
    probability = fitted("persistence", reversed_).probability(sample.x)
    order = np.argsort(sample.x[:, 0])
    assert np.all(np.diff(probability[order]) >= 0)
    assert probability.max() > probability.min()


def test_ewma_keeps_the_half_life_that_tells_most() -> None:
    """If only one half-life predicts spikes, it is chosen and has all the importance."""
    sample = chosen("ewma", full_sample(1000, 3))
    random = np.random.default_rng(3)
    x = random.lognormal(size=sample.x.shape) * 1e-4
    x[:, 1] = sample.volatility * random.lognormal(sigma=0.1, size=1000)
    detector: Any = fitted("ewma", dataclasses.replace(sample, x=x))
    np.testing.assert_array_equal(detector.importance(), [0, 1, 0, 0])


VOLATILITY_RULES = ("persistence", "ewma_10", "ewma_30", "ewma_60", "ewma_300", "ewma", "har", "garch")


@pytest.mark.parametrize("name", VOLATILITY_RULES)
def test_tau_of_each_row_is_part_of_the_rule(name: str) -> None:
    """If τ differs from row to row, a higher one is less likely reached, and the ONNX form agrees."""
    sample = full_sample(1200, 7)
    tau = sample.tau * np.random.default_rng(7).choice([0.5, 1.0, 2.0], len(sample))
    y = (sample.volatility >= tau).astype(np.int8)
    columns = chosen(name, sample)
    rows = dataclasses.replace(columns, names=(*columns.names, TAU), x=np.column_stack([columns.x, tau]), y=y, tau=tau)
    assert DETECTORS[name].columns(rows.names) == rows.names
    detector = fitted(name, rows)
    lower, higher = (detector.probability(np.column_stack([columns.x, tau * k])) for k in (0.5, 2.0))
    assert (lower > higher).all()
    served = exported(detector, len(rows.names)).probability(rows.x)
    np.testing.assert_allclose(served, detector.probability(rows.x), atol=1e-5, rtol=0)
    assert detector.importance()[-1] == 0.0


def test_seasonal_finds_a_lively_quarter() -> None:
    """Spikes in the first minutes after a full hour, in the afternoon: only the clock predicts them."""
    random = np.random.default_rng(5)
    now = random.uniform(0, 86_400, 6000)
    phase = 2 * np.pi * now / 86_400
    is_lively = (now > 43_200) & (now % 3600 < 600)
    y = (random.random(6000) < np.where(is_lively, 0.6, 0.05)).astype(np.int8)
    names = ("time_of_day_sin", "time_of_day_cos", "seconds_to_full_60min")
    x = np.column_stack([np.sin(phase), np.cos(phase), 3600 - now % 3600])
    sample = dataclasses.replace(
        full_sample(6000, 5), names=names, x=x, y=y, volatility=np.where(y == 1, 2.0, 0.5), tau=np.ones(6000)
    )
    probability = fitted("seasonal", sample).probability(x)
    assert probability[is_lively].mean() > 3 * probability[~is_lively].mean()


@pytest.mark.parametrize(
    "names", [("seconds_to_full_60min",), ("time_of_day_sin", "time_of_day_cos")], ids=["hour", "day"]
)
def test_seasonal_does_with_part_of_the_clock(names: tuple[str, ...]) -> None:
    """The hour or the day alone will do; half of the day's phase is left out."""
    sample = full_sample(800, 6)
    part = dataclasses.replace(sample, names=names, x=sample.x[:, [sample.names.index(name) for name in names]])
    detector = fitted("seasonal", part)
    served = exported(detector, len(names)).probability(part.x)
    np.testing.assert_allclose(served, detector.probability(part.x), atol=1e-5, rtol=0)
    assert DETECTORS["seasonal"].columns(("time_of_day_sin", "trend_60s")) == ()


def test_the_composite_takes_its_ten_features_where_they_are() -> None:
    """Of many columns the composite takes the ten it was made of; of none of them, whatever there is."""
    offered = ("trend_60s", "realized_volatility_60s", "spread_mean_300s")
    assert DETECTORS["baseline"].columns(offered) == offered[1:]
    assert DETECTORS["baseline"].columns(("trend_60s", "lag_ticks_1s")) == ("trend_60s",)
