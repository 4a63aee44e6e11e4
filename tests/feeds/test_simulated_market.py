"""The simulated market: deterministic, plausible and partly predictable."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.feeds.simulation.market import decay, simulate_market
from volspike.market import MISSING_ID, SECOND_NS, Kind, Side, Ticks

START = 1_764_547_200 * SECOND_NS
PRODUCTS = ("BTC-USD", "ETH-USD")
HOURS_2 = 7200


def market(products: tuple[str, ...] = PRODUCTS, seconds: int = HOURS_2, seed: int = 7) -> Ticks:
    return Ticks.join(list(simulate_market(products, seconds, seed, START)))


@pytest.fixture(scope="module")
def ticks() -> Ticks:
    return market()


def assert_equal(one: Ticks, other: Ticks) -> None:
    assert one.products == other.products
    for (name, column), (_, expected) in zip(one.columns(), other.columns(), strict=True):
        np.testing.assert_array_equal(column, expected, err_msg=name)


def of_product(ticks: Ticks, code: int) -> Ticks:
    return ticks[ticks.product == code]


def last_per_second(ticks: Ticks, column: NDArray[np.float64], seconds: int) -> NDArray[np.float64]:
    """The column's last value at or before the end of each second, from the 60th second on."""
    rows = np.searchsorted(ticks.time, START + np.arange(61, seconds + 1) * SECOND_NS) - 1
    return column[rows]


def returns(ticks: Ticks, code: int) -> NDArray[np.float64]:
    own = of_product(ticks, code)
    return np.diff(np.log(last_per_second(own, (own.best_bid + own.best_ask) / 2, HOURS_2)))


def test_same_seed_same_ticks(ticks: Ticks) -> None:
    """The same seed gives the same run; another seed gives another."""
    assert_equal(ticks, market())
    assert not np.array_equal(ticks.price[:100], market(seed=8).price[:100])


@pytest.mark.parametrize("seconds", [1, 599, 600, 601, 3600])
def test_a_longer_run_begins_with_the_shorter(ticks: Ticks, seconds: int) -> None:
    """A longer run changes no earlier tick."""
    assert_equal(market(seconds=seconds), ticks[ticks.time < START + seconds * SECOND_NS])


def test_products_are_independent_of_the_others(ticks: Ticks) -> None:
    """A product does not depend on the other products simulated."""
    alone = market(("ETH-USD",))
    beside = of_product(ticks, 1)
    np.testing.assert_array_equal(alone.time, beside.time)
    np.testing.assert_array_equal(alone.price, beside.price)


def test_ticks_have_the_fields_of_an_advanced_trade_ticker(ticks: Ticks) -> None:
    """Ticks have quotes with sizes, a price at one of them, and no trades."""
    assert set(ticks.kind) == {Kind.TICKER}
    assert set(ticks.side) == {Side.UNKNOWN}
    assert set(ticks.trade_id) == set(ticks.sequence) == {MISSING_ID}
    assert np.isnan(ticks.last_size).all()
    assert (ticks.bid_size > 0).all()
    assert (ticks.ask_size > 0).all()
    assert ((ticks.price == ticks.best_bid) | (ticks.price == ticks.best_ask)).all()


def test_quotes_are_on_the_grid(ticks: Ticks) -> None:
    """The bid is always below the ask, and both are multiples of a cent."""
    assert (ticks.best_bid < ticks.best_ask).all()
    for column in (ticks.best_bid, ticks.best_ask, ticks.price):
        np.testing.assert_array_equal(np.round(column, 2), column)


def test_time_never_goes_back(ticks: Ticks) -> None:
    """Ticks of all products are in the order of their time, and are received later."""
    assert (np.diff(ticks.time) >= 0).all()
    assert (np.diff(ticks.received) >= 0).all()
    assert (ticks.received > ticks.time).all()
    assert START <= ticks.time[0] <= ticks.time[-1] < START + HOURS_2 * SECOND_NS


def test_ticks_come_in_bursts(ticks: Ticks) -> None:
    """A product has 3 to 10 ticks per second, and several times as many in the busiest seconds."""
    own = of_product(ticks, 0)
    counts = np.bincount((own.time - START) // SECOND_NS, minlength=HOURS_2)
    assert 3 < counts.mean() < 10
    assert counts.max() > 4 * counts.mean()


def test_volatility_clusters(ticks: Ticks) -> None:
    """A large move is followed by large ones: the autocorrelation of |r| ten seconds on is clearly above zero."""
    size = np.abs(returns(ticks, 0))
    assert np.corrcoef(size[:-10], size[10:])[0, 1] > 0.15


def test_products_share_a_factor(ticks: Ticks) -> None:
    """The products' returns are correlated and not equal."""
    assert 0.15 < np.corrcoef(returns(ticks, 0), returns(ticks, 1))[0, 1] < 0.9


def test_bursts_are_partly_predictable() -> None:
    """Over six hours, thin books precede volatile minutes more often than not, and far from always."""
    seconds, minute = 6 * 3600, 60
    own = market(("BTC-USD",), seconds, seed=3)
    second = (own.time - START) // SECOND_NS
    counts = np.bincount(second, minlength=seconds)
    depth = np.bincount(second, np.log(own.bid_size + own.ask_size), seconds) / np.maximum(counts, 1)
    moves = np.diff(np.log(last_per_second(own, own.price, seconds)), prepend=np.nan)
    rows = np.arange(600, seconds - 200, 20)
    thinness = np.array([-depth[row - 15 : row].mean() for row in rows])
    future = np.array([moves[row - 60 : row - 60 + minute].std() for row in rows])
    wild = future >= np.quantile(future, 0.9)
    ahead = (thinness[wild][:, None] > thinness[~wild][None, :]).mean()
    assert 0.6 < ahead < 0.95


def test_chunks_are_of_one_size_however_long_the_run() -> None:
    """The first chunks of a run of a century are available at once, each of ten minutes."""
    chunks = list(islice(simulate_market(PRODUCTS, 100 * 365 * 86_400, 1, START), 3))
    spans = [(chunk.time[-1] - chunk.time[0]) / SECOND_NS for chunk in chunks]
    assert all(590 < span < 600 for span in spans)


def test_no_seconds_no_ticks() -> None:
    """A run of zero seconds is empty."""
    assert list(simulate_market(PRODUCTS, 0, 1, START)) == []


def test_decay_is_the_recursion() -> None:
    """The closed form equals the loop."""
    shocks = np.random.default_rng(0).normal(size=600)
    value, expected = 0.7, []
    for shock in shocks:
        value = np.exp(-1 / 30) * value + shock
        expected.append(value)
    np.testing.assert_allclose(decay(shocks, 30.0, 0.7), expected, rtol=1e-9, atol=1e-12)
