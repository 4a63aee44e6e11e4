"""One model of many markets, its evaluation without a product, and the prior of its online calibration."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from volspike.datasets import Dataset, FeatureFacts
from volspike.datasets.build import build_features, label_file
from volspike.errors import NotEnoughData, SchemaMismatch
from volspike.features import Every, FeatureSet, Scope
from volspike.feeds.simulation.market import simulate_market
from volspike.labels import TAU, TRAILING_HOUR, SpikeDefinition
from volspike.market import Profile
from volspike.models import Detector
from volspike.models.adaptive import CENTRE_LOG_ODDS, SIZE, VOLATILITIES
from volspike.models.relative import COLUMNS
from volspike.tape.write import write_ndjson
from volspike.training.pooled import (
    STACKING_STEP_S,
    STEP_S,
    Market,
    PooledTraining,
    StackingRows,
    TrainingPart,
    adaptation_of,
    budget_log_odds,
    calibrated,
    left_out_probabilities,
    load_markets,
    probabilities,
    stacking_coefficients,
)

SECOND = 1_000_000_000
START = 1_764_979_200
FULL = FeatureSet.of((30, 60, 300), "full")
NAMES = tuple(name for name in FULL.names if name in {*COLUMNS, *VOLATILITIES, TRAILING_HOUR})
FACTS = FeatureFacts(
    digest=FULL.digest,
    windows=FULL.windows,
    every=Every.SECOND,
    profile=Profile.TRADE,
    simulated=True,
    scope=Scope.FULL,
)


def market_of(product: str, hours: float, seed: int, *, venue: str = "venue", scale: float = 1e-4) -> Market:
    """A market whose minutes are like the ones before them; ``scale`` is the volatility of its hours."""
    random = np.random.default_rng(seed)
    rows = int(hours * 3600)
    minutes = random.normal(-0.9, 0.6, rows // 60 + 3)
    level = np.exp(np.interp(np.arange(rows) / 60, np.arange(len(minutes)), minutes))
    tau = np.full(rows, 2 * scale)
    x = np.empty((rows, len(NAMES)))
    for column, name in enumerate(NAMES):
        is_scaled = "volatility" in name or "log_return" in name
        noise = np.exp(random.normal(0.0, 0.2, rows))
        x[:, column] = tau * level * noise if is_scaled else random.normal(1.0, 0.3, rows)
    x[:, NAMES.index(TRAILING_HOUR)] = scale
    dataset = Dataset(
        facts=FACTS,
        products=(product,),
        time=(START + 1 + np.arange(rows)) * SECOND,
        product=np.zeros(rows, np.int32),
        session=np.full(rows, START),
        names=NAMES,
        x=x,
        future_volatility=tau * level * np.exp(random.normal(0.0, 0.2, rows)),
        tau=tau,
        persistence=x[:, NAMES.index("realized_volatility_60s")],
    )
    return Market(venue, product, dataset, tau)


@cache
def markets() -> tuple[Market, ...]:
    """Three markets of very different scale; two of them trade the same product."""
    return (
        market_of("BTC-USD", 6, 1, venue="here"),
        market_of("BTC-USD", 3, 2, venue="there", scale=1e-6),
        market_of("EUR-USD", 6, 3, scale=1e-2),
    )


@cache
def training() -> PooledTraining:
    return PooledTraining([TrainingPart.of(market) for market in markets()])


@cache
def model() -> Detector:
    return training().fit()


@cache
def left_out() -> tuple[NDArray[np.float64], ...]:
    return tuple(left_out_probabilities(training(), markets(), lambda _step: None))


def test_one_row_in_six_seconds_is_learned_from() -> None:
    """With τ as the last column, and the trailing hour from which clients derive it as the first."""
    (part, *_), (market, *_) = training().parts, markets()
    assert len(part.tau) == len(market.tau) // STEP_S
    assert (part.names[0], part.names[-1]) == (TRAILING_HOUR, TAU)
    np.testing.assert_array_equal(part.x[:, -1], part.tau)


def test_no_label_crosses_the_cut() -> None:
    """Rows whose label ends at the cut or later are not learned from."""
    market = markets()[0]
    cut = int(market.dataset.time[0]) + 3600 * SECOND
    part = TrainingPart.of(market, before=cut)
    rows = np.flatnonzero((market.second % STEP_S == 0) & (market.dataset.time + 61 * SECOND < cut))
    np.testing.assert_array_equal(part.volatility, market.dataset.future_volatility[rows])


def test_a_market_weighs_as_the_root_of_its_rows() -> None:
    """Twice the rows have 1.4 times the weight, and the mean weight is 1."""
    sample, sizes = training().sample(), [len(part.tau) for part in training().parts]
    totals = [part.sum() for part in np.split(sample.weight, np.cumsum(sizes)[:-1])]
    assert totals[0] / totals[1] == pytest.approx(np.sqrt(2))
    assert sample.weight.mean() == pytest.approx(1.0)


def test_a_product_is_left_out_at_every_venue() -> None:
    """Its probabilities come from a model of the other products only."""
    alone = PooledTraining([part for part in training().parts if part.product == "EUR-USD"]).fit()
    for market, probability in list(zip(markets(), left_out(), strict=True))[:2]:
        np.testing.assert_array_equal(probability, probabilities(alone, market))


def test_the_last_product_cannot_be_left_out() -> None:
    """Nothing would be learned from."""
    with pytest.raises(NotEnoughData, match="two products"):
        PooledTraining([training().parts[2]]).sample("EUR-USD")


def test_it_forecasts_a_market_of_another_scale() -> None:
    """On a market a thousand times as volatile as the others, spikes get far higher probabilities than the rest."""
    market, probability = markets()[2], left_out()[2]
    assert probability[market.y == 1].mean() > 3 * probability[market.y == 0].mean()


def test_stacking_follows_the_outcomes() -> None:
    """Where outcomes depend on the model's log odds only, with half the slope, the regression finds that."""
    random = np.random.default_rng(4)
    inputs = np.column_stack([np.ones(40_000), random.normal(0, 1.5, 40_000), random.normal(0, 1, (40_000, 4))])
    y = (random.random(40_000) < expit(inputs @ [-2.0, 0.5, 0.0, 0.0, 0.0, 0.0])).astype(np.int8)
    found = stacking_coefficients([StackingRows("A", inputs, y)])
    np.testing.assert_allclose(found, [-2.0, 0.5, 0.0, 0.0, 0.0, 0.0], atol=0.06)


def test_stacking_leaves_a_product_out() -> None:
    """The prior of a product's evaluation does not depend on its own outcomes."""
    rows = [StackingRows.of(market, score) for market, score in zip(markets(), left_out(), strict=True)]
    without = stacking_coefficients(rows, "EUR-USD")
    np.testing.assert_array_equal(without, stacking_coefficients(rows[:2]))
    assert (without != stacking_coefficients(rows)).all()


def test_stacking_takes_every_fifteenth_second_with_known_inputs() -> None:
    """A row without a probability is not among them."""
    market, probability = markets()[0], left_out()[0].copy()
    probability[np.flatnonzero(market.second % STACKING_STEP_S == 0)[:3]] = np.nan
    assert len(StackingRows.of(market, probability).y) == len(market.tau) // STACKING_STEP_S - 3


def test_a_listed_product_begins_with_the_models_probabilities() -> None:
    """Until the first outcome is known."""
    market, score = markets()[0], left_out()[0]
    adaptation = adaptation_of(np.zeros(SIZE))
    assert adaptation.listed == (CENTRE_LOG_ODDS, 1.0, 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(calibrated(market, score, adaptation, is_listed=True)[:60], score[:60], rtol=1e-9)


def test_the_first_alert_threshold_is_the_median_over_markets() -> None:
    """A score that is one number only, for which no threshold uses the budget, does not count."""
    both = [budget_log_odds([market], [score]) for market, score in zip(markets()[:2], left_out()[:2], strict=True)]
    constant = np.full(len(markets()[2].tau), 1.0)
    assert budget_log_odds(markets(), [*left_out()[:2], constant]) == pytest.approx(np.mean(both))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of two simulated products, a row per second, labelled."""
    folder = tmp_path_factory.mktemp("pooled")
    write_ndjson(simulate_market(["BTC-USD", "ETH-USD"], 1800, 1, START * SECOND), folder / "t.ndjson", simulated=True)
    file = folder / "features.parquet"
    build_features([str(folder / "t.ndjson")], file, FULL, Every.SECOND)
    label_file(file, file, SpikeDefinition.parse("jump:2"))
    return file


def test_each_product_of_a_file_is_a_market(features: Path) -> None:
    """Its rows have a threshold of twice the volatility of the trailing hour."""
    btc, eth = load_markets(features, "simulated", SpikeDefinition.parse("jump:2"))
    assert [btc.name, eth.name] == ["simulated:BTC-USD", "simulated:ETH-USD"]
    np.testing.assert_array_equal(btc.tau, 2 * btc.dataset.columns([TRAILING_HOUR])[:, 0])
    assert np.isfinite(eth.dataset.future_volatility).all()


def test_a_file_without_the_columns_is_refused(features: Path, tmp_path: Path) -> None:
    """The core set has no volatilities of half an hour."""
    core = tmp_path / "core.parquet"
    build_features([str(features.parent / "t.ndjson")], core, FeatureSet(), Every.SECOND)
    label_file(core, core)
    with pytest.raises(SchemaMismatch, match="feature-set full"):
        load_markets(core, "simulated", SpikeDefinition.parse("fixed:0.0001"))
