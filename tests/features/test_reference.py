"""Each of the seven families compared with a slow, obvious implementation, tick by tick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.reference import ReferenceEngine, assert_close
from tests.features.strategies import tick_lists
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.market import Kind, Profile, Tick, Ticks
from volspike.tape import read_ticks

WINDOWS = (3, 10, 40)


def check(ticks: list[Tick], windows: tuple[int, ...], profile: Profile, every: Every) -> int:
    engine = FeatureEngine(FeatureSet(windows), profile, every)
    reference = ReferenceEngine(windows, profile, every is Every.SECOND)
    made = 0
    for tick in ticks:
        actual, expected = engine.update(tick), reference.update(tick)
        assert len(actual) == len(expected)
        for row, want in zip(actual, expected, strict=True):
            assert (row.timestamp, row.session_id) == (want.timestamp, want.session_id)
            assert (row.is_warm, row.is_whole) == (want.is_warm, want.is_whole)
            assert_close(row.features, want.features)
            assert_close(row.values[5:7], [want.since_trade, want.gap])
            made += 1
    return made


@given(tick_lists(), st.sampled_from(list(Profile)), st.sampled_from(list(Every)))
def test_rows_equal_the_reference(ticks: list[Tick], profile: Profile, every: Every) -> None:
    """For any events in any order, every row equals the one computed from the ticks themselves."""
    check(ticks, WINDOWS, profile, every)


@pytest.mark.parametrize("every", list(Every))
def test_rows_of_a_random_walk_equal_the_reference(every: Every) -> None:
    """Warm rows of a market with several ticks a second equal the reference."""
    rng = np.random.default_rng(5)
    n = 900
    time = 1_700_000_000_000_000_000 + np.cumsum(rng.exponential(3e8, n)).astype(np.int64)
    price = np.round(90_000 * np.exp(np.cumsum(rng.normal(0, 2e-5, n))), 2)
    ticks = [
        Tick(
            time=int(t),
            received=int(t),
            kind=Kind.TICKER,
            product_id="BTC-USD",
            price=float(p),
            best_bid=float(p) - 0.01,
            best_ask=float(p) + float(s),
            bid_size=float(b),
            ask_size=float(a),
        )
        for t, p, s, b, a in zip(
            time, price, rng.choice([0.01, 1.5], n), rng.exponential(1, n), rng.exponential(2, n), strict=True
        )
    ]
    assert check(ticks, (5, 30, 120), Profile.TICKER, every) > 200


@pytest.mark.shared_data
def test_rows_of_a_recorded_market_equal_the_reference(shared_data: Path) -> None:
    """Rows of a recorded Coinbase market equal the reference."""
    ticks = Ticks.join(list(read_ticks([shared_data / "coinbase" / "ticks_BTCUSD_20251206_031601.ndjson"])))
    some = [ticks.tick(row) for row in range(0, len(ticks), 2)]
    assert check(some, (30, 60, 200), Profile.TICKER, Every.TICK) == len(some)
