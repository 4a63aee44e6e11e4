"""The alert threshold that holds a budget, live as in a replay."""

from __future__ import annotations

from math import isfinite, nan
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from volspike.episodes import EpisodeTracker, SeriesOrder, alarm_runs
from volspike.errors import UsageError
from volspike.models.alert_level import BUDGET_MINUTES, HIGHEST, LOWEST, RATE, AlertLevel, alert_levels, budget_share

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def series_of(time: NDArray[np.int64]) -> SeriesOrder:
    return SeriesOrder.of(time, np.zeros(len(time), np.int32))


def minutes_per_day(time: NDArray[np.int64], probability: NDArray[np.float64], budget: float) -> float:
    series = series_of(time)
    alarms = alarm_runs(series, probability, alert_levels(series, probability, -1.0, budget))
    seconds = series.seconds()
    return float(seconds[alarms.mask(len(time))].sum() / seconds.sum() * 1440)


MARKETS: Final[dict[str, Any]] = {
    # mean and deviation of the log odds of each minute, given its day
    "may, then in turmoil": lambda day: (-4.0 + 3.0 * (day > 1.5), 1.0 + 0.0 * day),
    "the same every day": lambda day: (-3.0 + 0.0 * day, 1.0 + 0.0 * day),
    "rising for days": lambda day: (-6.0 + day, 0.5 + 0.0 * day),
    "nearly constant": lambda day: (-5.0 + 0.0 * day, 1e-6 + 0.0 * day),
}


@pytest.mark.parametrize("market", list(MARKETS))
@pytest.mark.parametrize("budget", [15.0, 30.0, 60.0])
def test_alarm_minutes_are_within_half_of_the_budget(market: str, budget: float) -> None:
    """Over three days of any kind of market the time in alarm is at most half above or a third below the budget."""
    mean, deviation = MARKETS[market](np.arange(3 * 1440 + 2) / 1440)
    minutes = np.random.default_rng(7).normal(mean, deviation)
    at = np.arange(3 * 86_400)
    probability = expit(np.interp(at / 60, np.arange(len(minutes)), minutes))
    used = minutes_per_day(START + at * SECOND, probability, budget)
    assert budget / 1.5 <= used <= 1.5 * budget


steps = st.tuples(
    st.one_of(st.integers(1, 5), st.just(70)), st.one_of(st.just(nan), st.floats(0.01, 0.99)), st.booleans()
)


@given(st.lists(steps, min_size=1, max_size=120), st.floats(-3.0, 1.0), st.integers(0, 120))
def test_live_rows_and_recorded_rows_have_the_same_bits(
    rows: list[tuple[int, float, bool]], first: float, cut: int
) -> None:
    """A tracker with the threshold of each row opens the episodes of a replay, even across a restart."""
    time = START + np.cumsum([step for step, _, _ in rows]) * SECOND
    probability = np.array([value for _, value, _ in rows])
    may_open = np.array([may for _, _, may in rows])
    level = AlertLevel(first)
    tracker = EpisodeTracker(level.threshold, product="BTC-USD")
    thresholds, is_open = [], []
    for row, (now, value, may) in enumerate(zip(time.tolist(), probability.tolist(), may_open.tolist(), strict=True)):
        if row == cut:
            saved, level = level.state(), AlertLevel(0.0)
            level.resume(saved)
        if isfinite(value):
            tracker.set_threshold(level.update(now, is_open=tracker.current is not None))
        tracker.update(now, value, may_open=may)
        thresholds.append(level.threshold)
        is_open.append(tracker.current is not None)
    series = series_of(time)
    levels = alert_levels(series, probability, first, may_open=may_open)
    assert np.array(thresholds).tobytes() == levels.tobytes()
    assert alarm_runs(series, probability, levels, may_open).mask(len(time)).tolist() == is_open


def test_an_open_alert_raises_the_threshold_and_its_absence_lowers_it() -> None:
    """The odds change by the rate times the seconds, and by the share of the budget."""
    level = AlertLevel(0.0)
    level.update(START, is_open=False)
    raised = level.update(START + SECOND, is_open=True)
    assert raised == pytest.approx(expit(RATE * (1 - BUDGET_MINUTES / 1440)))
    lowered = level.update(START + 3 * SECOND, is_open=False)
    assert lowered == pytest.approx(expit(RATE * (1 - 3 * BUDGET_MINUTES / 1440)))


@pytest.mark.parametrize(("seconds", "changes"), [(59, True), (60, False), (-1, False)])
def test_a_silence_that_no_row_covers_changes_nothing(seconds: int, changes: bool) -> None:
    """Neither does a row that comes late."""
    level = AlertLevel(0.0)
    level.update(START, is_open=False)
    assert (level.update(START + seconds * SECOND, is_open=True) != 0.5) is changes


@pytest.mark.parametrize(("is_open", "limit"), [(True, HIGHEST), (False, LOWEST)])
def test_the_threshold_stays_within_limits(is_open: bool, limit: float) -> None:
    """However long an alert lasts, or no alert."""
    level = AlertLevel(0.0)
    for minute in range(60 * 24 * 4):
        level.update(START + minute * 59 * SECOND, is_open=is_open)
    assert level.threshold == pytest.approx(expit(limit))


def test_every_series_begins_anew() -> None:
    """The alarms of one product do not move the threshold of another."""
    time = START + np.tile(np.arange(200), 2) * SECOND
    product = np.repeat(np.array([0, 1], np.int32), 200)
    levels = alert_levels(SeriesOrder.of(time, product), np.full(400, 0.9), -1.0)
    assert levels[:200].tolist() == levels[200:].tolist()
    assert levels[0] == expit(-1.0)


@pytest.mark.parametrize("minutes", [0.0, -1.0, 1440.0, nan])
def test_an_impossible_budget_is_refused(minutes: float) -> None:
    """A day has 1440 minutes."""
    with pytest.raises(UsageError, match="alarm minutes"):
        budget_share(minutes)
