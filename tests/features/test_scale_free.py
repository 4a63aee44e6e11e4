"""Invariants of the added features: independent of scale and date, bounded, free of drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.reference import Session
from tests.features.reference_added import Seconds, assert_features_close, at_tick, by_second
from tests.features.reference_day import day_memory
from tests.features.strategies import START, WARMING, tick_lists
from tests.features.test_engine import columns
from volspike.features import Every, FeatureEngine, FeatureSet, Scope
from volspike.market import SECOND_NS, Profile, Tick

FULL = FeatureSet((3, 20, 60), Scope.FULL)
FAMILIES = 7 * 3
DAY_NS = 86_400 * SECOND_NS
PROFILES = st.sampled_from(list(Profile))
EVERY = st.sampled_from(list(Every))
MARKETS = tick_lists(min_size=10, max_size=40, steps=WARMING)


def features(ticks: list[Tick], profile: Profile, every: Every) -> np.ndarray:
    """(rows, features) of the full set."""
    engine = FeatureEngine(FULL, profile, every)
    rows = [row.features for tick in ticks for row in engine.update(tick)]
    return np.array(rows).reshape(-1, len(FULL.names))


def changed(tick: Tick, price: float = 1.0, size: float = 1.0, later: int = 0) -> Tick:
    """The tick with its prices and sizes multiplied and its times shifted."""
    fields = {name: getattr(tick, name) for name in Tick.__struct_fields__}
    fields |= {name: fields[name] * price for name in ("price", "best_bid", "best_ask")}
    fields |= {name: fields[name] * size for name in ("bid_size", "ask_size", "last_size")}
    fields |= {name: fields[name] + later for name in ("time", "received")}
    return Tick(**fields)


@pytest.mark.parametrize(("price", "size"), [(4.0, 1.0), (1.0, 4.0), (0.125, 1.0), (1.0, 1 / 1024)])
@settings(max_examples=30)
@given(MARKETS, PROFILES, EVERY)
def test_scale_changes_no_feature(price: float, size: float, ticks: list[Tick], profile: Profile, every: Every) -> None:
    """Multiplying prices or sizes by a power of two changes no added feature, bit for bit."""
    scaled = features([changed(tick, price, size) for tick in ticks], profile, every)
    np.testing.assert_array_equal(scaled[:, FAMILIES:], features(ticks, profile, every)[:, FAMILIES:])


@settings(max_examples=50)
@given(MARKETS, PROFILES, EVERY, st.integers(1, 400))
def test_shifting_by_days_changes_no_feature(ticks: list[Tick], profile: Profile, every: Every, days: int) -> None:
    """The same ticks some days later give the same features, including those of the time of day."""
    later = features([changed(tick, later=days * DAY_NS) for tick in ticks], profile, every)
    np.testing.assert_array_equal(later, features(ticks, profile, every))


BOUNDS = {
    "jump_share": (0, 1),
    "moving_share": (0, 1),
    "semivariance_balance": (-1, 1),
    "flow_imbalance": (-1, 1),
    "trend": (-1, 1),
    "return_autocorrelation": (-np.inf, np.inf),
    "order_flow_imbalance": (-np.inf, np.inf),
    "weighted_mid_bps": (-np.inf, np.inf),
    "time_of_day": (-1, 1),
    "seconds_to_full_5min": (1, 300),
    "seconds_to_full_15min": (1, 900),
    "seconds_to_full_60min": (1, 3600),
    "range_position": (0, 1),
}
"""Beginning of a name → range of the feature; all others are ratios or volatilities, at least 0."""


@given(MARKETS, PROFILES, EVERY)
def test_features_stay_in_their_range(ticks: list[Tick], profile: Profile, every: Every) -> None:
    """Shares lie in [0, 1], balances in [−1, 1], volatilities and ratios are not negative, nothing is infinite."""
    made = features(ticks, profile, every)
    for column, name in enumerate(FULL.names[FAMILIES:], FAMILIES):
        least, most = next((span for start, span in BOUNDS.items() if name.startswith(start)), (0, np.inf))
        known = made[~np.isnan(made[:, column]), column]
        assert np.isfinite(known).all(), name
        assert ((known >= least - 1e-9) & (known <= most + 1e-9)).all(), name


def test_means_agree_with_a_fresh_computation_after_a_million_seconds() -> None:
    """After a million seconds every feature equals a computation from the last day alone, to 1e-9 relative."""
    rng = np.random.default_rng(12)
    n = 1_000_000
    time = START + np.cumsum(rng.exponential(1.0, n) * SECOND_NS).astype(np.int64)
    price = np.round(60_000.0 * np.exp(np.cumsum(rng.normal(0, 3e-6, n))), 2)
    ticks = columns(time, price, rng)
    for rows in FeatureEngine(FULL, every=Every.SECOND).run(ticks):
        last = rows[len(rows) - 1]
    second = last.timestamp // SECOND_NS - 1
    tail = [ticks.tick(row) for row in range(n - 100_000, n) if time[row] < last.timestamp]
    session = Session([(tick.time, tick) for tick in tail])
    seconds = Seconds(session, second, Profile.TICKER)
    fresh = by_second(seconds) | at_tick(seconds, session, last.timestamp)
    fresh |= day_memory([session], second, Profile.TICKER)
    wanted = [fresh.get(name, value) for name, value in zip(FULL.names, last.features.tolist(), strict=True)]
    assert len(fresh.keys() & set(FULL.names)) == len(FULL.names) - FAMILIES
    assert_features_close(FULL, last.features, wanted)
