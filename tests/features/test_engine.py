"""Guarantees of the engine: live equals replay, restarts change no row, products are independent, sums do not drift."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.reference import deviation
from tests.features.strategies import START, tick_lists
from volspike.errors import DataError, SchemaMismatch, UsageError
from volspike.features import Every, FeatureEngine, FeatureRow, FeatureRows, FeatureSet, Scope
from volspike.market import SECOND_NS, Cause, Gap, Kind, Profile, Tick, Ticks

SET = FeatureSet((3, 10, 40))
DEEP = FeatureSet((3, 20, 60), Scope.DEEP)
LED = FeatureSet((3, 20, 60), Scope.DEEP, "BTC-USD")
PAIRS = ("BTC-USD", "ETH-USD", "SOL-USD")
PROFILES = st.sampled_from(list(Profile))
EVERY = st.sampled_from(list(Every))
SETS = st.sampled_from([SET, LED])


def bits(row: FeatureRow) -> tuple[object, ...]:
    """All fields of a row, its floats as bytes: NaN equals NaN, and 0.0 differs from −0.0."""
    return (row.timestamp, row.product_id, row.session_id, row.is_warm, row.is_whole, row.values.tobytes())


def one_by_one(engine: FeatureEngine, ticks: list[Tick]) -> list[tuple[object, ...]]:
    return [bits(row) for tick in ticks for row in engine.update(tick)]


def tick_at(seconds: float, price: float = 100.0, **fields: float) -> Tick:
    time = START + round(seconds * SECOND_NS)
    return Tick(time=time, received=time, kind=Kind.TICKER, product_id="BTC-USD", price=price, **fields)  # type: ignore[arg-type]


@given(tick_lists(PAIRS), SETS, PROFILES, EVERY, st.integers(302, 400))
def test_run_equals_repeated_update(
    ticks: list[Tick], feature_set: FeatureSet, profile: Profile, every: Every, chunk: int
) -> None:
    """Replay and live give the same rows, bit for bit, for any chunk size of the replay."""
    live = one_by_one(FeatureEngine(feature_set, profile, every), ticks)
    replay = FeatureEngine(feature_set, profile, every)
    assert [bits(row) for part in replay.run(Ticks.of(ticks), chunk) for row in part] == live


@given(tick_lists(PAIRS), SETS, PROFILES, EVERY, st.data())
def test_restart_leaves_features_unchanged(
    ticks: list[Tick], feature_set: FeatureSet, profile: Profile, every: Every, data: st.DataObject
) -> None:
    """Stopping after any tick and resuming from the snapshot changes no row."""
    cut = data.draw(st.integers(0, len(ticks)))
    uninterrupted = one_by_one(FeatureEngine(feature_set, profile, every), ticks)
    first, second = FeatureEngine(feature_set, profile, every), FeatureEngine(feature_set, profile, every)
    before = one_by_one(first, ticks[:cut])
    second.restore(first.snapshot())
    assert before + one_by_one(second, ticks[cut:]) == uninterrupted
    assert second.dropped() == dropped_by(ticks, profile, every)


def dropped_by(ticks: list[Tick], profile: Profile, every: Every) -> object:
    engine = FeatureEngine(SET, profile, every)
    one_by_one(engine, ticks)
    return engine.dropped()


@given(tick_lists(PAIRS), st.sampled_from([SET, DEEP, LED]), PROFILES, EVERY)
def test_products_are_independent(ticks: list[Tick], feature_set: FeatureSet, profile: Profile, every: Every) -> None:
    """Other products change no row of a product, except the leader in the columns that are its own."""
    together = one_by_one(FeatureEngine(feature_set, profile, every), ticks)
    for pair in PAIRS:
        company = [tick for tick in ticks if tick.product_id in (pair, feature_set.leader)]
        alone = one_by_one(FeatureEngine(feature_set, profile, every), company)
        assert [row for row in together if row[1] == pair] == [row for row in alone if row[1] == pair]


@given(tick_lists(), tick_lists(), PROFILES)
def test_a_gap_over_300_seconds_begins_a_session(before: list[Tick], after: list[Tick], profile: Profile) -> None:
    """After a silence of more than 300 s no feature depends on the events before it."""
    newest = max(tick.time for tick in before)
    shift = newest - min(tick.time for tick in after) + 300 * SECOND_NS + 1
    shift += (-shift) % SECOND_NS  # the same place within the second, so that the seconds' grid is the same
    shifted = [moved(tick, shift) for tick in after]
    alone, continued = FeatureEngine(SET, profile), FeatureEngine(SET, profile)
    one_by_one(continued, before)
    expected = [row.features.tobytes() for tick in shifted for row in alone.update(tick)]
    assert [row.features.tobytes() for tick in shifted for row in continued.update(tick)] == expected


def moved(tick: Tick, by: int) -> Tick:
    fields = {name: getattr(tick, name) for name in Tick.__struct_fields__}
    new_id = tick.trade_id + 1_000_000 if tick.trade_id >= 0 else -1
    return Tick(**{**fields, "time": tick.time + by, "received": tick.received + by, "trade_id": new_id})


def test_a_gap_of_exactly_300_seconds_ends_no_session() -> None:
    """A session ends with a silence over 300 s, not with one of exactly 300 s."""
    engine = FeatureEngine(SET)
    first = engine.update(tick_at(0))[0]
    same = engine.update(tick_at(300))[0]
    other = engine.update(tick_at(600.000000001))[0]
    assert first.session_id == same.session_id != other.session_id


def test_windows_are_warm_one_second_after_their_length() -> None:
    """A window of w seconds is NaN until its session has w + 1 finished seconds."""
    engine = FeatureEngine(FeatureSet((3,)))
    rows = [engine.update(tick_at(second))[0] for second in range(6)]
    assert [row.is_warm for row in rows] == [False] * 4 + [True] * 2
    assert np.isnan(rows[3].features).all()
    assert rows[4].by_name()["log_return_3s"] == 0.0


def test_every_second_of_a_session_has_a_row() -> None:
    """Silent seconds have rows as well, at their ends; the unfinished second has none yet."""
    engine = FeatureEngine(SET, every=Every.SECOND)
    rows = [row for tick in (tick_at(0), tick_at(0.5), tick_at(7)) for row in engine.update(tick)]
    first = START // SECOND_NS
    assert [row.timestamp for row in rows] == [(first + k + 1) * SECOND_NS for k in range(7)]


def test_the_last_second_before_a_long_silence_has_a_row() -> None:
    """A session's last second gets its row when the next session begins."""
    engine = FeatureEngine(SET, every=Every.SECOND)
    engine.update(tick_at(0, 100.0))
    rows = engine.update(tick_at(1000, 200.0))
    assert [(row.session_id, row.values[0]) for row in rows] == [(START // SECOND_NS, 100.0)]


def test_silence_over_ten_seconds_clears_is_whole() -> None:
    """Rows are not `is_whole` while a silence of over 10 s lies in their longest window."""
    engine = FeatureEngine(FeatureSet((3, 20)))
    seconds = [0, 1, 12, *range(13, 40)]
    is_whole = {second: engine.update(tick_at(second))[0].is_whole for second in seconds}
    assert is_whole[1]
    assert not is_whole[12]
    assert not is_whole[32]
    assert is_whole[33]


def test_a_gap_of_the_ledger_clears_is_whole_live_and_in_replay() -> None:
    """Rows are not `is_whole` while a gap of the ledger lies in their longest window, live and in replay."""
    ticks = [tick_at(second) for second in range(60)]
    gap = Gap(start=ticks[19].received, end=ticks[20].received, products=("BTC-USD",), cause=Cause.SEQUENCE)
    live, flags = FeatureEngine(FeatureSet((3, 20))), []
    for second, tick in enumerate(ticks):
        if second == 20:
            live.mark_gap(gap)
        flags += [row.is_whole for row in live.update(tick)]
    replay = FeatureEngine(FeatureSet((3, 20)))
    parts = (Ticks.of(ticks[:7]), Ticks.of(ticks[7:]))
    assert [row.is_whole for rows in replay.run_all(parts, [gap]) for row in rows] == flags
    assert flags == [second < 20 or second > 40 for second in range(60)]


def test_late_and_repeated_ticks_are_counted_and_make_no_row() -> None:
    """Late, repeated and invalid events are counted by reason and make no row."""
    engine = FeatureEngine(SET)
    events = [tick_at(5), tick_at(5), tick_at(4), tick_at(6, float("nan")), tick_at(6, -1.0), tick_at(5, 101.0)]
    rows = [row for tick in events for row in engine.update(tick)]
    assert len(rows) == 2
    dropped = engine.dropped("BTC-USD")
    assert (dropped.late, dropped.duplicates, dropped.invalid, dropped.unplaced) == (1, 1, 2, 0)


def test_one_tick_from_the_future_does_not_stop_a_product() -> None:
    """The tenth tick in a row that is late by more than 300 s is accepted: the newer time was wrong."""
    engine = FeatureEngine(SET)
    engine.update(tick_at(0))
    engine.update(tick_at(10_000_000))
    made = [len(engine.update(tick_at(second))) for second in range(1, 15)]
    assert made == [0] * 9 + [1] * 5


def test_ticks_late_by_exactly_300_seconds_never_set_the_clock_back() -> None:
    """Ticks that are late by exactly 300 s are dropped, however many there are; those later than that are not."""
    engine = FeatureEngine(SET)
    engine.update(tick_at(1000))
    assert [len(engine.update(tick_at(700))) for _ in range(20)] == [0] * 20
    assert [len(engine.update(tick_at(699.999999999))) for _ in range(10)] == [0] * 9 + [1]


@pytest.mark.parametrize("skew_s", [0, 3600])
def test_gap_by_a_clock_that_is_behind_marks_rows(skew_s: int) -> None:
    """If our clock is behind the exchange's, the gap counts from the last event before it."""
    engine = FeatureEngine(SET)
    for second in range(60):
        engine.update(tick_at(second))
    end = START + (60 - skew_s) * SECOND_NS
    engine.mark_gap(Gap(start=end - SECOND_NS, end=end, products=("BTC-USD",), cause=Cause.MALFORMED))
    is_whole = [row.is_whole for second in range(60, 110) for row in engine.update(tick_at(second))]
    assert not any(is_whole[:39])
    assert is_whole[-1]


@pytest.mark.parametrize(("late_s", "begins"), [(0.5, False), (1.0, False), (1.1, True), (200.0, True), (400.0, True)])
def test_clock_step_begins_a_session_at_an_earlier_time(late_s: float, begins: bool) -> None:
    """After a reported clock step, the first tick that is late by more than a second begins a session."""
    engine = FeatureEngine(SET)
    engine.update(tick_at(1000))
    gap = Gap(start=START, end=START, products=("BTC-USD",), cause=Cause.CLOCK)
    engine.mark_gap(gap)
    rows = [engine.update(tick_at(1000 - late_s + second)) for second in (0, 0.01)]
    assert [len(made) for made in rows] == ([1, 1] if begins else [0, 0])
    assert engine.dropped().late == (0 if begins else 2)


def test_clock_step_without_an_earlier_time_changes_no_session() -> None:
    """When the times go on, the session does too, and a later late tick is late again."""
    engine = FeatureEngine(SET)
    (before,) = engine.update(tick_at(1000))
    engine.mark_gap(Gap(start=START, end=START, products=("BTC-USD",), cause=Cause.CLOCK))
    (after,) = engine.update(tick_at(1001))
    assert before.session_id == after.session_id
    assert engine.update(tick_at(900)) == []


def test_256_trade_ids_are_remembered() -> None:
    """A trade is a duplicate if its id is among the last 256 of its product; the one before those is forgotten."""
    engine = FeatureEngine(SET, Profile.TRADE)
    for trade_id in range(257):
        engine.update(tick_at(0, trade_id=trade_id))
    assert engine.update(tick_at(0, trade_id=1)) == []
    assert len(engine.update(tick_at(0, trade_id=0))) == 1
    assert engine.dropped().duplicates == 1


def test_late_trades_count_where_they_became_known() -> None:
    """A trade older than the newest ticker message adds its size to the current second, and to no other column."""
    engine = FeatureEngine(FeatureSet((3,)), Profile.TICKER_AND_TRADE)
    for second in range(6):
        engine.update(tick_at(second))
    trade = tick_at(3.5, 999.0, last_size=2.0)
    engine.update(Tick(**{name: getattr(trade, name) for name in Tick.__struct_fields__} | {"kind": Kind.TRADE}))
    row = engine.update(tick_at(5.5))[0].by_name()
    assert (row["volume_velocity_3s"], row["trade_intensity_3s"], row["price"]) == (2.0, 4.0, 100.0)


def test_volume_is_nan_without_sizes() -> None:
    """A feed of tickers without sizes has NaN volumes; one with trades has a volume of zero in a quiet window."""
    without, with_trades = FeatureEngine(FeatureSet((3,))), FeatureEngine(FeatureSet((3,)), Profile.TICKER_AND_TRADE)
    for second in range(6):
        last = without.update(tick_at(second)), with_trades.update(tick_at(second))
    assert np.isnan(last[0][0].by_name()["volume_velocity_3s"])
    assert last[1][0].by_name()["volume_velocity_3s"] == 0.0


def test_sums_agree_with_a_fresh_computation_after_ten_million_ticks() -> None:
    """After ten million ticks every feature equals a computation from its window alone, to 1e-9 relative."""
    rng = np.random.default_rng(11)
    engine = FeatureEngine(FeatureSet((30, 300)), Profile.TICKER)
    price, start, part = 60_000.0, START, 500_000
    for _ in range(20):
        time = start + np.sort(rng.integers(0, 5_000 * SECOND_NS, part))
        walk = np.round(price * np.exp(np.cumsum(rng.normal(0, 3e-6, part))), 2)
        ticks = columns(time, walk, rng)
        for rows in engine.run(ticks):
            newest = rows
        start, price = start + 5_000 * SECOND_NS, float(walk[-1])
    check_last_row(newest, ticks)


def columns(time: np.ndarray, price: np.ndarray, rng: np.random.Generator) -> Ticks:
    n = len(time)
    missing = np.full(n, -1)
    spread = rng.choice([0.01, 0.02, 13.37], n)
    sizes = (rng.exponential(1, n), rng.exponential(3, n), rng.exponential(0.1, n))
    sides = rng.integers(-1, 2, n).astype(np.int8)
    return Ticks(
        ("BTC-USD",), time, time, np.zeros(n, np.int8), np.zeros(n, np.int32), price, price - spread, price + spread,
        *sizes, sides, missing, missing,
    )  # fmt: skip


def check_last_row(rows: FeatureRows, ticks: Ticks) -> None:
    last = rows[len(rows) - 1].by_name()
    second = ticks.time // SECOND_NS
    now = int(second[-1])
    closing = {int(k): float(p) for k, p in zip(second, ticks.price, strict=True)}
    for window in (30, 300):
        inside = second > now - window
        prices = [closing[k] for k in range(now - window - 1, now)]
        share = ticks.bid_size[inside] / (ticks.bid_size[inside] + ticks.ask_size[inside])
        fresh = {
            "log_return": np.log1p((ticks.price[-1] - closing[now - window]) / closing[now - window]),
            "realized_volatility": deviation(list(np.log1p(np.diff(prices) / prices[:-1]))),
            "price_velocity": np.mean(np.abs(np.diff(prices))),
            "spread_mean": np.mean(ticks.best_ask[inside] - ticks.best_bid[inside]),
            "order_book_imbalance": np.mean(share),
            "trade_intensity": float(inside.sum()),
            "volume_velocity": np.sum(ticks.last_size[inside]),
        }
        for family, value in fresh.items():
            np.testing.assert_allclose(last[f"{family}_{window}s"], value, rtol=1e-9, err_msg=f"{family}_{window}s")


def test_a_steady_trend_keeps_its_digits() -> None:
    """If the mean return is far larger than the deviation, the deviation is still exact to 1e-9."""
    engine = FeatureEngine(FeatureSet((30,)))
    prices = [1_000_000.0 + k for k in range(40)]
    for second, price in enumerate(prices):
        rows = engine.update(tick_at(second, price))
    window = prices[8:39]
    returns = [float(np.log1p((b - a) / a)) for a, b in pairwise(window)]
    assert rows[0].by_name()["realized_volatility_30s"] == pytest.approx(deviation(returns), rel=1e-9)


def test_state_per_product_is_small() -> None:
    """The engine keeps less than 100 kB per product with the default windows, 300 kB with the full set."""
    assert FeatureEngine().bytes_per_product < 100_000
    assert FeatureEngine(FeatureSet(scope=Scope.DEEP)).bytes_per_product < 300_000


def test_a_snapshot_of_other_windows_is_refused() -> None:
    """A snapshot of another feature set, profile or row rate is refused."""
    snapshot = FeatureEngine(SET).snapshot()
    others = (FeatureEngine(), FeatureEngine(SET, Profile.TRADE), FeatureEngine(SET, every=Every.SECOND))
    for other in (*others, FeatureEngine(FeatureSet(scope=Scope.FULL))):
        with pytest.raises(SchemaMismatch):
            other.restore(snapshot)


@pytest.mark.parametrize("damage", [b"", b"\x00", b"not a snapshot"])
def test_damaged_snapshots_are_refused(damage: bytes) -> None:
    """Bytes that are not a snapshot raise DataError and leave the engine unchanged."""
    engine = FeatureEngine(SET)
    engine.update(tick_at(0))
    with pytest.raises(DataError):
        engine.restore(damage)
    assert engine.products == ("BTC-USD",)


@pytest.mark.parametrize("windows", [(), (0,), (-5,), (30, 30), (60, 30), (100_000,)])
def test_windows_must_be_ascending_seconds(windows: tuple[int, ...]) -> None:
    """A feature set refuses windows that are not ascending numbers of seconds in its range."""
    with pytest.raises(UsageError):
        FeatureSet(windows)


def test_digest_depends_on_windows() -> None:
    """Sets with other windows, scope or leader have other digests; the order of the windows does not matter."""
    assert FeatureSet((30, 60)).digest != FeatureSet((30, 61)).digest
    assert len({FeatureSet(scope=scope).digest for scope in Scope}) == 3
    assert FeatureSet(scope=Scope.FULL, leader="BTC-USD").digest != FeatureSet(scope=Scope.FULL).digest
    assert FeatureSet.of([300, 30, 60]).digest == FeatureSet().digest


@pytest.mark.parametrize(
    ("windows", "scope", "leader", "message"),
    [
        ([30, 60], "all", None, "unknown feature set 'all'"),
        ([30, 60], "core", "BTC-USD", "not the core set"),
        ([30, 50], "full", None, "at least 60 s"),
        ([10, 60], "full", None, "of its own"),
        ([60, 900], "deep", None, "of its own"),
    ],
)
def test_invalid_sets_are_refused(windows: list[int], scope: str, leader: str | None, message: str) -> None:
    """An unknown scope, a leader in the core set, and windows that do not fit are refused, with the reason."""
    with pytest.raises(UsageError, match=message):
        FeatureSet.of(windows, scope, leader)
