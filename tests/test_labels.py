"""The label rule: its values, where labels exist, that later rows change none, and that live labels equal recorded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import NotEnoughData, UsageError
from volspike.labels import (
    DAY_S,
    HORIZON_S,
    LEVEL_OUTCOMES,
    MAX_GAPS,
    DelayedLabels,
    LevelThreshold,
    SecondGrid,
    SpikeDefinition,
    future_volatility,
    jump_threshold,
    spike_threshold,
    spikes,
)

SECOND = 1_000_000_000
START = 1_700_000_000

Row = tuple[int, float, int]
"""Time (ns), price and session."""
Gap = tuple[int, int]


def walk(n: int, seed: int = 3) -> np.ndarray:
    return 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 1e-4, n)))


def labels_of(
    time: np.ndarray, price: np.ndarray, session: np.ndarray, cuts: list[int], is_per_second: bool = False
) -> dict[int, float]:
    """Future volatility by second of recorded rows that are added in parts."""
    grid = SecondGrid(300 * SECOND, is_per_second=is_per_second)
    for part in np.split(np.arange(len(time)), sorted(cuts)):
        grid.add(time[part], time[part] // SECOND, session[part], price[part])
    return {int(k): float(v) for second, value, _ in grid.labels() for k, v in zip(second, value, strict=True)}


def test_future_volatility_is_the_deviation_of_the_next_sixty_returns() -> None:
    """Each second's future volatility is the standard deviation of the 60 log returns that follow it."""
    price = walk(200)
    labels = future_volatility(price)
    for second in (0, 1, 77, 139):
        returns = [math.log(price[k] / price[k - 1]) for k in range(second + 1, second + 61)]
        assert labels[second] == pytest.approx(np.std(returns), rel=1e-9)


def test_labels_exist_only_where_the_next_sixty_seconds_are_finished() -> None:
    """The last 60 seconds of a session have no label."""
    labels = future_volatility(walk(100))
    assert np.isfinite(labels[:40]).all()
    assert np.isnan(labels[40:]).all()
    assert np.isnan(future_volatility(walk(60))).all()


@given(st.integers(1, 400), st.integers(62, 400), st.randoms(use_true_random=False))
def test_later_rows_change_no_earlier_label(known: int, total: int, random: object) -> None:
    """A label that exists after some rows has the same bits after any more."""
    rng = np.random.default_rng(known * 1000 + total)
    time = np.cumsum(rng.integers(0, 3 * SECOND, total)) + 50 * SECOND
    price, session = walk(total), np.zeros(total, np.int64)
    before = labels_of(time[:known], price[:known], session[:known], [])
    after = labels_of(time, price, session, [])
    assert all(after[second] == label for second, label in before.items() if not math.isnan(label))


@given(st.lists(st.integers(0, 299), max_size=5))
def test_adding_rows_in_parts_changes_no_label(cuts: list[int]) -> None:
    """Labels do not depend on where the rows are cut into parts, within a second or between two."""
    rng = np.random.default_rng(8)
    time = np.cumsum(rng.integers(0, SECOND, 300)) + 50 * SECOND
    session = np.repeat([1, 2], 150)
    assert str(labels_of(time, walk(300), session, cuts)) == str(labels_of(time, walk(300), session, []))


def test_labels_never_extend_into_another_session() -> None:
    """A silence longer than the session gap, or another session id, ends the future of earlier rows."""
    price = walk(400)
    time = np.arange(400) * SECOND
    time[200:] += 301 * SECOND
    silent = labels_of(time, price, np.zeros(400, np.int64), [])
    renumbered = labels_of(np.arange(400) * SECOND, price, np.repeat([7, 9], 200), [])
    for labels in (silent, renumbered):
        assert math.isnan(labels[199])
        assert math.isnan(labels[140])
        assert math.isfinite(labels[138])


def test_labels_never_extend_into_a_gap() -> None:
    """Rows with a gap in the 60 seconds after them have no label; the others keep theirs."""
    price, time = walk(400), np.arange(400) * SECOND
    grid = SecondGrid(300 * SECOND, is_per_second=False, gaps=[(200 * SECOND, 203 * SECOND)])
    grid.add(time, time // SECOND, np.zeros(400, np.int64), price)
    ((second, volatility, _),) = grid.labels()
    without_gap = labels_of(time, price, np.zeros(400, np.int64), [])
    for k, value in zip(second.tolist(), volatility.tolist(), strict=True):
        if 139 < k < 202 or k > 338:
            assert math.isnan(value), k
        else:
            assert value == without_gap[k]


def test_silent_seconds_carry_the_price() -> None:
    """A second without a row has the price of the second before it, so its return is zero."""
    time = np.array([0, 1, 2, 30, *range(31, 100)]) * SECOND
    price = np.array([100.0, 101.0, 100.0, 102.0, *[102.0] * 69])
    labels = labels_of(time, price, np.zeros(len(time), np.int64), [])
    returns = [0.0] * 60
    returns[28 - 1] = math.log(102 / 100)
    assert labels[2] == pytest.approx(np.std(returns), rel=1e-9)


def test_threshold_is_a_percentile_of_the_given_rows() -> None:
    """τ is the smallest value that the given share does not exceed; weights count as repeated rows."""
    values = np.arange(1.0, 101.0)
    assert spike_threshold(values) == 90.0
    weights = np.random.default_rng(1).integers(0, 5, 100)
    assert spike_threshold(values, 75.0, weights) == spike_threshold(np.repeat(values, weights), 75.0)
    assert spike_threshold(np.append(values, np.nan)) == 90.0


@pytest.mark.parametrize("values", [np.array([]), np.full(5, np.nan), np.zeros(50)])
def test_threshold_without_known_or_moving_prices_is_an_error(values: np.ndarray) -> None:
    """If no future is known, or the price did not move, there is no τ rather than a τ of zero."""
    with pytest.raises(NotEnoughData):
        spike_threshold(values)


@pytest.mark.parametrize(
    ("text", "written"),
    [("jump", "jump:2"), ("jump:2.5", "jump:2.5"), ("level", "level:90"), ("fixed:3e-4", "fixed:0.0003")],
)
def test_a_spike_definition_is_read_as_it_is_written(text: str, written: str) -> None:
    """The text of a definition gives the same definition, with its default value where it has one."""
    definition = SpikeDefinition.parse(text)
    assert str(definition) == written
    assert SpikeDefinition.parse(written) == definition


@pytest.mark.parametrize(
    "text", ["", "jump:x", "jump:0", "jump:inf", "fixed", "fixed:-1", "level:100", "percentile:0", "nan"]
)
def test_unknown_definitions_and_values_out_of_range_are_refused(text: str) -> None:
    """The name and the range are checked."""
    with pytest.raises(UsageError):
        SpikeDefinition.parse(text)


def test_a_jump_threshold_is_unknown_without_a_trailing_volatility() -> None:
    """A multiple where the price moved, NaN where it did not or the volatility is unknown."""
    tau = jump_threshold(np.array([1e-4, 0.0, np.nan]), 2.0)
    np.testing.assert_array_equal(tau, [2e-4, np.nan, np.nan])
    assert np.isnan(jump_threshold(0.0, 2.0))


def level_by_definition(second: np.ndarray, volatility: np.ndarray, percentile: float, horizon: int) -> np.ndarray:
    """τ of ``level`` row by row: all outcomes of the trailing day that the row's minute may use."""
    tau = []
    for each in second:
        minute = each // 60 * 60
        known = volatility[(second >= minute - DAY_S) & (second + horizon < minute) & np.isfinite(volatility)]
        tau.append(
            np.quantile(known, percentile / 100, method="inverted_cdf") if len(known) >= LEVEL_OUTCOMES else np.nan
        )
    return np.array(tau)


@pytest.mark.parametrize("horizon", [60, 300])
def test_level_is_the_percentile_of_the_outcomes_of_the_trailing_day(horizon: int) -> None:
    """Equal to the definition across gaps and over more than a day; live, outcome by outcome, the same bits."""
    random = np.random.default_rng(horizon)
    second = np.cumsum(random.integers(1, 40, 12_000)) + START
    volatility = np.where(random.random(len(second)) < 0.1, np.nan, random.gamma(2.0, 1e-4, len(second)))
    tau = LevelThreshold(90.0, horizon).taus(second, volatility)
    sampled = slice(None, None, 97)
    expected = level_by_definition(second, volatility, 90.0, horizon)
    np.testing.assert_array_equal(tau[sampled], expected[sampled])
    assert np.isfinite(expected).sum() > 1000
    live, pending, found = LevelThreshold(90.0, horizon), 0, []
    for each in second:
        while second[pending] + horizon < each:  # what ``DelayedLabels`` has returned by then
            live.add(int(second[pending]), float(volatility[pending]))
            pending += 1
        found.append(live.tau(int(each)))
    np.testing.assert_array_equal(found, tau)


def test_later_outcomes_change_no_earlier_level() -> None:
    """τ of the first rows is the same bits whatever follows."""
    random = np.random.default_rng(5)
    second = np.arange(9000) + START
    volatility = random.gamma(2.0, 1e-4, 9000)
    short = LevelThreshold().taus(second[:6000], volatility[:6000])
    volatility[6000 - HORIZON_S :] *= 100.0
    np.testing.assert_array_equal(LevelThreshold().taus(second, volatility)[:6000], short)


def test_level_remembers_a_day_of_seconds() -> None:
    """After three days of a row per second, τ is that of the last day alone."""
    second = np.arange(3 * DAY_S) + START // 60 * 60
    volatility = np.repeat([1.0, 2.0, 3.0], DAY_S)
    tau = LevelThreshold(50.0).taus(second, volatility)
    assert tau[2 * DAY_S - 1] == 2.0
    assert tau[-1] == 3.0


def test_a_spike_is_at_or_above_the_threshold() -> None:
    """The label is 1 from τ on."""
    assert spikes(np.array([0.1, 0.2, 0.3, math.nan]), 0.2).tolist() == [0, 1, 1, 0]
    assert HORIZON_S == 60


def recorded_labels(rows: list[Row], gaps: list[Gap], *, is_per_second: bool, horizon: int = 60) -> dict[int, float]:
    """Known labels by second according to ``SecondGrid``."""
    if not rows:
        return {}
    time = np.array([row[0] for row in rows])
    grid = SecondGrid(300 * SECOND, is_per_second=is_per_second, gaps=gaps)
    second = time // SECOND - (1 if is_per_second else 0)
    grid.add(time, second, np.array([row[2] for row in rows]), np.array([row[1] for row in rows]))
    labels = [(k, v) for ks, vs, _ in grid.labels(horizon) for k, v in zip(ks.tolist(), vs.tolist(), strict=True)]
    return {k: v for k, v in labels if math.isfinite(v)}


def live_labels(rows: list[Row], gaps: list[Gap], *, is_per_second: bool, horizon: int = 60) -> dict[int, float]:
    """Labels by second according to ``DelayedLabels``; each gap is added before the first row after its start."""
    labels, found, waiting = DelayedLabels(horizon, is_per_second=is_per_second), {}, sorted(gaps)
    for time, price, session in rows:
        while waiting and waiting[0][0] <= time:
            labels.add_gap(*waiting.pop(0), ("X",))
        for label in labels.add("X", time, price, session):
            assert label.second not in found
            found[label.second] = label.future_volatility
    return found


@st.composite
def markets(draw: st.DrawFn, *, is_per_second: bool) -> tuple[list[Row], list[Gap]]:
    """Rows in time order with silences and several sessions, and gaps anywhere among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows: list[Row] = []
    time, session, price = START * SECOND, 0, 100.0
    for _ in range(draw(st.integers(0, 5))):
        mean = draw(st.sampled_from([0.1, 1.0, 4.0, 70.0]))
        for _ in range(draw(st.integers(1, 150))):
            step = rng.exponential(mean) * SECOND
            if is_per_second:
                step = max(1, round(step / SECOND)) * SECOND
            time += int(step)
            price *= math.exp(rng.normal(0, 1e-4))
            rows.append((time, price, session))
        session += draw(st.integers(0, 1))
        time += draw(st.integers(0, 400)) * SECOND
    span = max(1, (time - START * SECOND) // SECOND)
    gaps = []
    for _ in range(draw(st.integers(0, 6))):
        start = START * SECOND + draw(st.integers(0, span)) * SECOND + draw(st.integers(0, SECOND))
        gaps.append((start, start + draw(st.integers(0, 30 * SECOND))))
    return rows, gaps


@pytest.mark.parametrize("horizon", [60, 7])
@given(markets(is_per_second=False))
def test_live_labels_of_ticks_equal_recorded_ones(horizon: int, market: tuple[list[Row], list[Gap]]) -> None:
    """The same seconds and the same bits, across silences, sessions and gaps."""
    live = live_labels(*market, is_per_second=False, horizon=horizon)
    assert live == recorded_labels(*market, is_per_second=False, horizon=horizon)


@given(markets(is_per_second=True))
def test_live_labels_of_seconds_equal_recorded_ones(market: tuple[list[Row], list[Gap]]) -> None:
    """The same holds for rows at the end of each second."""
    assert live_labels(*market, is_per_second=True) == recorded_labels(*market, is_per_second=True)


def test_a_live_label_is_returned_by_the_first_row_after_its_horizon() -> None:
    """The label of second s is returned once second s+60 is finished, not before."""
    labels = DelayedLabels()
    for k in range(61):
        assert labels.add("X", (START + k) * SECOND, 100.0 + k, 0) == []
    (label,) = labels.add("X", (START + 61) * SECOND, 100.0, 0)
    assert (label.product, label.second) == ("X", START)


def test_live_products_do_not_mix() -> None:
    """Each product has its own prices, session and gaps."""
    labels, found = DelayedLabels(), []
    labels.add_gap((START + 10) * SECOND, (START + 11) * SECOND, ("Y",))
    for k in range(100):
        for product, price in (("X", 100.0 + k), ("Y", 50.0)):
            found += labels.add(product, (START + k) * SECOND, price, 0)
    assert {label.product for label in found if label.second < START + 10} == {"X"}
    assert all(label.future_volatility == 0.0 for label in found if label.product == "Y")


def test_a_live_step_back_starts_a_new_session() -> None:
    """Rows before and after a step back in time never share a label."""
    labels = DelayedLabels()
    for k in range(50):
        labels.add("X", (START + k) * SECOND, 100.0, 0)
    labels.add("X", (START + 20) * SECOND, 100.0, 0)
    found = [label for k in range(21, 82) for label in labels.add("X", (START + k) * SECOND, 100.0, 0)]
    assert [label.second for label in found] == [START + 20]


def test_live_memory_is_bounded() -> None:
    """Whatever the number of rows and gaps, two minutes of prices and ``MAX_GAPS`` gaps are kept."""
    labels = DelayedLabels()
    for k in range(5000):
        labels.add("X", (START + k) * SECOND, 100.0, 0)
        labels.add_gap((START + k) * SECOND, (START + k) * SECOND + 1, ("X",))
        labels.add_gap((START + 100 * k) * SECOND, (START + 100 * k) * SECOND + 1, ("Z",))
    session = labels._sessions["X"]
    assert len(session._closes) <= 61
    assert len(session._pending) <= 62
    assert len(labels._gaps["X"]) == 1
    assert len(labels._gaps["Z"]) <= MAX_GAPS
