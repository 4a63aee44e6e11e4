"""Outcomes of alerts by the rules of the evaluation, and what followed probabilities."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.episodes import Episode, Runs, SeriesOrder, spike_runs
from volspike.evaluation.spike_events import SpikeTimeline
from volspike.live.alert_log import EDGES, FALSE, HIT, MINUTES, PENDING, AlertLog, Explanation
from volspike.market import SECOND_NS, Mode

HORIZON = 60


def episode(opened: int, closed: int | None, product: str = "A") -> Episode:
    return Episode(
        id=f"{opened}",
        product=product,
        opened=opened * SECOND_NS,
        closed=None if closed is None else closed * SECOND_NS,
        peak_probability=0.5,
        threshold=0.4,
    )


def run(log: AlertLog, spikes: set[int], seconds: int, product: str = "A") -> None:
    for second in range(seconds):
        log.outcome(product, second, is_spike=second in spikes)


def outcomes(log: AlertLog) -> list[tuple[str, float | None]]:
    return [(entry["outcome"], entry["lead_s"]) for entry in log.entries()]


@pytest.mark.parametrize(
    ("spikes", "expected"),
    [
        ({99}, (FALSE, None)),
        ({100}, (HIT, 60.0)),
        ({159}, (HIT, 119.0)),
        ({160}, (FALSE, None)),
        ({99, 100}, (HIT, 59.0)),
        ({40, 99, 130}, (HIT, 0.0)),
    ],
)
def test_an_alert_is_a_hit_if_a_spike_follows_one_of_its_rows(spikes: set[int], expected: tuple[str, float]) -> None:
    """Rows from the opening to before the closing count; the lead is to the realized spike of the event."""
    log = AlertLog(HORIZON, Mode.LIVE)
    log.add(episode(100, 160), is_in_sample=False)
    run(log, spikes, 300)
    assert outcomes(log) == [expected]


def test_an_outcome_is_pending_until_its_rows_are_known() -> None:
    """The last row before the closing decides; an open alert is decided by a spike only."""
    log = AlertLog(HORIZON, Mode.LIVE)
    log.add(episode(10, None), is_in_sample=False)
    run(log, set(), 200)
    assert outcomes(log) == [(PENDING, None)]
    log.add(episode(10, 210), is_in_sample=False)
    assert log.outcome("A", 209, is_spike=False) == []
    assert log.outcome("B", 210, is_spike=False) == []
    (decided,) = log.outcome("A", 210, is_spike=False)
    assert decided.outcome == FALSE


@given(
    st.sets(st.integers(0, 600), max_size=12),
    st.lists(st.tuples(st.integers(1, 80), st.integers(60, 120)), min_size=1, max_size=5),
)
def test_outcomes_equal_those_of_the_evaluation(spikes: set[int], steps: list[tuple[int, int]]) -> None:
    """The same alerts and rows have the same outcomes and leads as in a backtest, whatever they are."""
    log = AlertLog(HORIZON, Mode.LIVE)
    first, last, second = [], [], 0
    for pause, length in steps:
        second += pause
        log.add(episode(second, second + length), is_in_sample=False)
        first.append(second)
        last.append(second + length - 1)
        second += length
    n = second + 2 * HORIZON
    y = np.array([i in spikes for i in range(n)], np.int8)
    series = SeriesOrder.of(np.arange(n) * SECOND_NS, np.zeros(n, np.int32))
    calm = np.ones(n, bool)
    runs = spike_runs(series, y)
    timeline = SpikeTimeline(series, runs, calm[runs.first], series.seconds(), calm, calm)
    expected = timeline.match(Runs(np.array(first), np.array(last)))
    run(log, spikes, n)
    for (outcome, lead), event, ahead in zip(outcomes(log), expected.event, expected.lead_s, strict=True):
        assert outcome == (HIT if event >= 0 else FALSE)
        assert (lead is None) == isnan(ahead)
        assert lead is None or lead == pytest.approx(ahead)


def test_an_alert_without_a_known_row_is_no_false_alarm() -> None:
    """After lost data or a restart its outcome stays pending; one known row is enough to decide it."""
    log = AlertLog(HORIZON, Mode.LIVE)
    log.restore([AlertLog(HORIZON, Mode.LIVE).add(episode(1, 61), is_in_sample=False)])
    log.add(episode(100, 160), is_in_sample=False)
    log.add(episode(200, 260), is_in_sample=False)
    for second in (99, 170, 230, 300):
        log.outcome("A", second, is_spike=False)
    assert [outcome for outcome, _ in outcomes(log)] == [PENDING, PENDING, FALSE]


def test_the_peak_rises_while_an_earlier_alert_is_decided() -> None:
    """The outcome of a closed alert does not end the open one of its product."""
    log = AlertLog(HORIZON, Mode.LIVE)
    log.add(episode(10, 70), is_in_sample=False)
    log.add(episode(80, None), is_in_sample=False)
    run(log, set(), 71)
    log.raise_peak("A", 0.9)
    assert [(entry["outcome"], entry["peak_probability"]) for entry in log.entries()] == [(FALSE, 0.5), (PENDING, 0.9)]


def test_the_peak_of_an_open_alert_rises() -> None:
    """Later rows raise the peak of the open alert of their product only, and lower none."""
    log = AlertLog(HORIZON, Mode.LIVE)
    log.add(episode(10, None), is_in_sample=False)
    log.add(episode(10, None, "B"), is_in_sample=False)
    for product, probability in (("A", 0.7), ("A", 0.6), ("C", 0.9), ("A", nan)):
        log.raise_peak(product, probability)
    assert [entry["peak_probability"] for entry in log.entries()] == [0.7, 0.5]


def test_the_newest_alerts_are_kept_and_counted() -> None:
    """The oldest of more than the limit are dropped; stored ones come first, and none of them is open."""
    log = AlertLog(HORIZON, Mode.LIVE, limit=3)
    other = AlertLog(HORIZON, Mode.LIVE)
    log.restore([other.add(episode(1, None), is_in_sample=True)])
    assert [(entry["state"], entry["closed"]) for entry in log.entries()] == [("closed", 61_000)]
    for opened in (100, 200, 300):
        log.add(episode(opened, opened + 60), is_in_sample=False)
    assert [entry["opened"] for entry in log.entries()] == [100_000, 200_000, 300_000]
    assert log.counts("A") == {"alerts": 3, "spikes": 0}
    assert log.opened_since("A", 200 * SECOND_NS) == 2
    assert log.entries("B") == []


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([nan, *EDGES, 0.004, 0.13, 0.9])), min_size=1, max_size=80),
    st.sets(st.integers(0, 3200), max_size=60),
)
def test_explanation_equals_a_slow_count(steps: list[tuple[int, float]], spikes: set[int]) -> None:
    """The first known row of each minute counts once, in the bin that contains its probability."""
    explanation, second = Explanation(), 0
    minutes: dict[int, tuple[int, float]] = {}
    for step, probability in steps:
        second += step
        explanation.add(second, probability)
        if not isnan(probability):
            minutes.setdefault(second // 60, (second, probability))
    for each in range(second + 1):
        explanation.outcome(each, is_spike=each in spikes)
    for place, shown in enumerate(explanation.fields("A", 60)["bins"]):
        inside = [
            start
            for start, probability in minutes.values()
            if shown["low"] <= probability < shown["high"] or (place == len(EDGES) - 2 and probability == 1.0)
        ]
        assert (shown["minutes"], shown["spikes"]) == (len(inside), sum(start in spikes for start in inside))


def test_only_the_latest_minutes_are_counted() -> None:
    """Older minutes of a bin leave it."""
    explanation = Explanation()
    for minute in range(MINUTES + 50):
        explanation.count(0.12, is_spike=minute < 50)
    shown = explanation.fields("A", 60)["bins"][4]
    assert (shown["low"], shown["minutes"], shown["spikes"]) == (0.1, MINUTES, 0)
