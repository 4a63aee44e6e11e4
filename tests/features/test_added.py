"""Each feature of the full and the deep set compared with its formula, row by row."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.reference_added import ReferenceMarket, assert_features_close
from tests.features.strategies import START, WARMING, tick_lists
from volspike.features import CATALOGUE, Every, FeatureEngine, FeatureSet, Scope
from volspike.features.catalogue import LEADER
from volspike.market import SECOND_NS, Kind, Profile, Side, Tick

WINDOWS = (3, 20, 60)
PAIRS = ("BTC-USD", "ETH-USD")
LED = FeatureSet(WINDOWS, Scope.DEEP, "BTC-USD")


def check(ticks: list[Tick], feature_set: FeatureSet, profile: Profile, every: Every) -> int:
    """Compares every row with the reference; returns how many were warm."""
    engine = FeatureEngine(feature_set, profile, every)
    reference = ReferenceMarket(feature_set, profile, every is Every.SECOND)
    warm = 0
    for tick in ticks:
        for row, want in zip(engine.update(tick), reference.update(tick), strict=True):
            assert (row.timestamp, row.is_warm) == (want.timestamp, want.is_warm)
            assert_features_close(feature_set, row.features, want.features)
            warm += row.is_warm
    return warm


@settings(max_examples=20)
@given(tick_lists(PAIRS, 10, 30, WARMING), st.sampled_from(list(Profile)), st.sampled_from(list(Every)))
def test_every_feature_equals_its_formula(ticks: list[Tick], profile: Profile, every: Every) -> None:
    """For any events in any order, every feature of the deep set and of the leader equals its formula."""
    check(ticks, LED, profile, every)


def market(n: int, seed: int, gap: float = 0.5, products: tuple[str, ...] = PAIRS) -> list[Tick]:
    """Ticks of some products in the order of their time: bursts, silent seconds, missing sizes, sides and quotes."""
    rng = np.random.default_rng(seed)
    time = START + np.cumsum(rng.exponential(gap * 1e9, n) * (rng.random(n) < 0.5)).astype(np.int64)
    price = np.round(90_000 * np.exp(np.cumsum(rng.normal(0, 2e-5, n) * (rng.random(n) < 0.4))), 2)
    quoted, sized, trade = rng.random(n) < 0.9, rng.random(n) < 0.9, rng.random(n) < 0.3
    return [
        Tick(
            time=int(time[i]),
            received=int(time[i]),
            kind=Kind.TRADE if trade[i] else Kind.TICKER,
            product_id=products[rng.integers(len(products))],
            price=float(price[i]),
            best_bid=float(price[i]) - rng.choice([0.01, 0.02]) if quoted[i] else nan,
            best_ask=float(price[i]) + rng.choice([0.01, 1.5]) if quoted[i] else nan,
            bid_size=rng.choice([0.0, rng.exponential()]) if sized[i] else nan,
            ask_size=rng.choice([0.0, rng.exponential(2)]) if sized[i] else nan,
            last_size=rng.exponential(0.1) if rng.random() < 0.8 else nan,
            side=Side(int(rng.integers(-1, 2))),
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("every", list(Every))
@pytest.mark.parametrize("profile", list(Profile))
def test_features_of_a_random_walk_equal_their_formulas(profile: Profile, every: Every) -> None:
    """Rows of a market of several ticks a second, two products and a leader, equal their formulas."""
    assert check(market(500, 5, 0.8), LED, profile, every) > 100


def rows_of(feature_set: FeatureSet, ticks: list[Tick], every: Every = Every.SECOND) -> list[dict[str, float]]:
    engine = FeatureEngine(feature_set, every=every)
    return [
        row.by_name() | {"at": row.timestamp, "product": PAIRS.index(row.product_id)}
        for tick in ticks
        for row in engine.update(tick)
        if row.is_warm
    ]


def tick_at(product: str, seconds: float, price: float = 100.0) -> Tick:
    time = START + round(seconds * SECOND_NS)
    return Tick(time=time, received=time, kind=Kind.TICKER, product_id=product, price=price)


def leading(seconds: list[float]) -> list[Tick]:
    """A leader whose price moves with each tick."""
    return [tick_at("BTC-USD", second, 100.0 + (i * i) % 7) for i, second in enumerate(seconds)]


def in_order(*parts: list[Tick]) -> list[Tick]:
    return sorted((tick for part in parts for tick in part), key=lambda tick: tick.time)


@pytest.mark.parametrize("silence", [0, 5, 70, 299.5])
def test_the_leaders_volatility_is_that_of_its_own_row(silence: float) -> None:
    """In a stream ordered by time every row has the leader's volatility of the same second, also in silent seconds."""
    seconds = [*np.arange(0, 100, 0.7), *np.arange(100 + silence, 200 + silence, 0.7)]
    other = [tick_at("ETH-USD", second + 0.31) for second in np.arange(0, 200 + silence, 3.3)]
    rows = rows_of(FeatureSet(WINDOWS, Scope.FULL, "BTC-USD"), in_order(leading(seconds), other))
    own = {row["at"]: row["realized_volatility_60s"] for row in rows if not row["product"]}
    led_rows = {row["at"]: row["leader_volatility_60s"] for row in rows if row["product"]}
    assert len(led_rows) > 100
    for at in led_rows.keys() & own.keys():
        assert led_rows[at] == own[at], (at - START) / 1e9


@pytest.mark.parametrize("every", list(Every))
def test_later_events_of_the_leader_change_no_row(every: Every) -> None:
    """Rows up to a second do not depend on the leader's later events: a move, silence, or another session."""
    led = FeatureSet(WINDOWS, Scope.FULL, "BTC-USD")
    past = leading(list(np.arange(0, 90, 0.9)))
    other = [tick_at("ETH-USD", second) for second in (*np.arange(0, 92, 2.0), 391.2)]
    end = START // SECOND_NS + 90
    futures = [[], [tick_at("BTC-USD", 91, 500.0)], [tick_at("BTC-USD", 390.9, 50.0)]]
    led_rows = [
        [row for row in rows_of(led, in_order(past, future, other), every) if row["product"]] for future in futures
    ]
    for rows in led_rows[1:]:
        assert rows != led_rows[0] or every is Every.TICK
        kept = [[row for row in some if row["at"] <= end * SECOND_NS] for some in (led_rows[0], rows)]
        without, with_later = ([list(row.values()) for row in some] for some in kept)
        np.testing.assert_array_equal(with_later, without)
    restarted = [row["leader_volatility_60s"] for row in led_rows[2]]
    silent = [row["leader_volatility_60s"] for row in led_rows[0]]
    np.testing.assert_array_equal(restarted, silent)


def test_a_leader_is_unknown_until_a_minute_and_after_its_session() -> None:
    """The leader's volatility is NaN in its first minute and after it was silent for 300 s."""
    led = FeatureSet(WINDOWS, Scope.FULL, "BTC-USD")
    other = [tick_at("ETH-USD", second) for second in np.arange(0, 520, 5.0)]
    rows = rows_of(led, in_order(leading(list(np.arange(50.0, 150, 0.9))), other))
    known = [row["at"] for row in rows if row["product"] and not np.isnan(row["leader_volatility_60s"])]
    first = START // SECOND_NS
    last_tick = START + round((50 + 0.9 * 111) * SECOND_NS)
    assert known[0] == (first + 50 + 61) * SECOND_NS
    assert known[-1] == (last_tick + 300 * SECOND_NS) // SECOND_NS * SECOND_NS


def test_rows_of_one_second_share_the_leaders_volatility() -> None:
    """An event of the leader that arrives late changes the rows from the next second on, not those of this one."""
    past = leading(list(np.arange(0, 80, 0.9)))
    other = [tick_at("ETH-USD", second) for second in range(101)]
    late = tick_at("BTC-USD", 85, 50.0)
    events = [*in_order(past, other), late, tick_at("ETH-USD", 100.4), tick_at("ETH-USD", 101.1)]
    rows = rows_of(FeatureSet(WINDOWS, Scope.FULL, "BTC-USD"), events, Every.TICK)
    before, same, after = [row["leader_volatility_60s"] for row in rows if row["product"]][-3:]
    assert before == same
    assert after > 2 * same


def test_a_leader_without_events_is_nan() -> None:
    """The volatility of a leader without any event is NaN."""
    rows = rows_of(FeatureSet(WINDOWS, Scope.FULL, "BTC-USD"), [tick_at("ETH-USD", second) for second in range(70)])
    assert rows
    assert all(np.isnan(row["leader_volatility_60s"]) for row in rows)


def test_a_market_without_price_changes_has_no_ratios() -> None:
    """If the price never changed, volatilities are 0 and ratios to them are NaN, not 0 or 1."""
    row = rows_of(FeatureSet(WINDOWS, Scope.FULL), [tick_at("BTC-USD", second) for second in range(70)])[-1]
    assert row["ewma_volatility_60s"] == row["realized_volatility_900s"] == row["bipower_volatility_60s"] == 0.0
    for name in ("volatility_ratio_60s", "ewma_ratio_60s", "jump_share_60s", "trend_60s", "variance_ratio_10s"):
        assert np.isnan(row[name]), name


def test_ratios_are_sound_after_a_day_without_price_changes() -> None:
    """Ratios of means that decayed towards 0 are NaN or in their range, never noise."""
    engine = FeatureEngine(FeatureSet(WINDOWS, Scope.FULL))
    for second in (*range(120), *range(320, 90_000, 200)):
        rows = engine.update(tick_at("BTC-USD", second, 100.0 + (second * second) % 7 if second < 120 else 100.0))
    last = rows[0].by_name()
    assert np.isnan(last["jump_share_60s"])
    assert np.isnan(last["semivariance_balance_60s"])
    assert 0.0 <= last["jump_share_1800s"] <= 1.0
    assert abs(last["trend_10s"]) < 1e-9


def test_names_are_in_the_kernels_order() -> None:
    """The deep set begins with the full one, which begins with the core; every added name is in the catalogue."""
    core, full, deep = (FeatureSet(scope=scope).names for scope in Scope)
    assert (full[: len(core)], deep[: len(full)]) == (core, full)
    assert (len(core), len(full) - len(core), len(deep) - len(full)) == (21, 114, 120)
    assert set(deep[21:]) <= set(CATALOGUE)


def paired(seconds: np.ndarray, moves: np.ndarray, factor: float = 1.0) -> list[Tick]:
    """A leader that moves at ``moves`` steps of a basis point, and a product at the same price times ``factor``."""
    prices = 100.0 * np.exp(np.cumsum(moves) * 1e-4)
    leader = [tick_at("BTC-USD", second, price) for second, price in zip(seconds, prices, strict=True)]
    return in_order(leader, [tick_at("ETH-USD", s + 0.3, p * factor) for s, p in zip(seconds, prices, strict=True)])


def test_a_constant_exchange_rate_changes_no_price_difference() -> None:
    """The difference of two prices and its change are those of prices in one currency."""
    led = FeatureSet(WINDOWS, Scope.FULL, "BTC-USD")
    moves = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 200)
    seconds = np.arange(200.0)
    one, other = (rows_of(led, paired(seconds, moves, factor)) for factor in (1.0, 150.0))
    for name in ("leader_difference_bps", "leader_difference_change_10s"):
        found = [[row[name] for row in rows if row["product"]] for rows in (one, other)]
        assert len(found[0]) > 100
        np.testing.assert_allclose(found[0], found[1], atol=1e-8)


def test_returns_of_the_leader_are_those_of_its_closing_prices() -> None:
    """After a step of 20 bp of the leader its returns of 1, 5 and 10 s show it for as many seconds, and no longer."""
    led = FeatureSet(WINDOWS, Scope.FULL, "BTC-USD")
    leader = [tick_at("BTC-USD", s, 100.0 if s < 100 else 100.0 * np.exp(2e-3)) for s in range(130)]
    other = [tick_at("ETH-USD", s + 0.5, 7.0) for s in range(130)]
    rows = {
        row["at"] // SECOND_NS - START // SECOND_NS: row
        for row in rows_of(led, in_order(leader, other))
        if row["product"]
    }
    for seconds in (1, 5, 10):
        shown = [end - 101 for end, row in rows.items() if abs(row[f"leader_return_{seconds}s"] - 2e-3) < 1e-12]
        assert shown == list(range(seconds))
    assert rows[100]["leader_difference_bps"] == pytest.approx(0.0, abs=1e-9)
    assert rows[101]["leader_difference_bps"] < -19
    assert rows[101]["leader_difference_change_10s"] == pytest.approx(-20.0)
    assert rows[112]["leader_difference_change_10s"] == pytest.approx(0.0, abs=1e-9)


def test_all_features_of_a_leader_are_missing_without_it() -> None:
    """A leader without any event gives NaN in each of its columns, and every other column as without a leader."""
    ticks = [tick_at("ETH-USD", second, 100.0 + second % 3) for second in range(100)]
    led, plain = (rows_of(FeatureSet(WINDOWS, Scope.FULL, leader), ticks) for leader in ("BTC-USD", None))
    names = [feature.name for feature in LEADER]
    for row, without in zip(led, plain, strict=True):
        assert all(np.isnan(row.pop(name)) for name in names)
        np.testing.assert_array_equal(list(row.values()), list(without.values()))
