"""Episodes caught, how early, and alarms about nothing, on stories short enough to count by hand."""

from __future__ import annotations

import dataclasses
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.markets import SECOND, START, market
from volspike.episodes import EpisodeTracker
from volspike.evaluation import EventFigures, Scored, event_figures, find_events, pooled
from volspike.evaluation.bootstrap import Draws


def story(
    spikes: list[tuple[int, int]], alarms: list[tuple[int, int]], seconds: int = 3601, wild: tuple[int, int] = (0, 0)
) -> Scored:
    """Seconds of one product; spike rows, rows above the threshold, and rows after a volatile minute, from – until."""
    marked = []
    for stretches in (spikes, alarms, [wild]):
        mark = np.zeros(seconds)
        for start, end in stretches:
            mark[start:end] = 1.0
        marked.append(mark)
    y, called, past = marked
    return Scored(
        time=START + np.arange(seconds, dtype=np.int64) * SECOND,
        product=np.zeros(seconds, np.int32),
        fold=np.ones(seconds, np.int32),
        y=y.astype(np.int8),
        past_volatility=2.0 * past,
        probability=called,
        threshold=np.full(seconds, 0.5),
        baseline=past,
        baseline_threshold=np.full(seconds, 0.5),
    )


def figures(scored: Scored) -> EventFigures:
    return event_figures(find_events(scored))


def test_an_hour_by_hand() -> None:
    """One of three spikes is predicted, one flagged too late, one missed; one more alarm is false."""
    found = figures(
        story(spikes=[(500, 600), (1500, 1700), (2500, 2560)], alarms=[(510, 580), (1600, 1650), (3000, 3001)])
    )
    assert (found.episodes, found.caught, found.in_time) == (3, 2, 1)
    assert (found.alarms, found.true_alarms) == (3, 2)
    assert found.recall == pytest.approx(2 / 3)
    assert found.recall_in_time == pytest.approx(1 / 3)
    assert found.precision == pytest.approx(2 / 3)
    assert found.hours == pytest.approx(1.0)
    assert found.false_alarms_per_hour == pytest.approx(1.0)
    assert found.lead_median_s == pytest.approx((50 - 40) / 2)
    # 70 s and 10 s of quiet; 60 s of hold; the same
    assert found.alarm_share == pytest.approx((80 + 60 + 60) / 3600)


def test_the_last_minute_itself_has_a_lead_of_nothing() -> None:
    """A rule that flags a spike after its minute has no lead time: lead 0, caught, not in time."""
    found = figures(story(spikes=[(500, 700)], alarms=[(560, 700)]))
    assert (found.lead_median_s, found.caught, found.in_time) == (0.0, 1, 0)


def test_an_alarm_of_the_first_row_leads_by_the_horizon() -> None:
    """The first spike row's minute ends 60 seconds later."""
    found = figures(story(spikes=[(500, 700)], alarms=[(500, 700)]))
    assert (found.lead_median_s, found.in_time) == (60.0, 1)


def test_leads_and_events_follow_a_longer_horizon() -> None:
    """At 300 s a spike is realized five minutes after its first row, and spikes less than that apart are one event."""
    scored = dataclasses.replace(story(spikes=[(500, 510), (700, 710)], alarms=[(700, 710)]), horizon_s=300)
    found = figures(scored)
    assert (found.episodes, found.caught, found.lead_median_s) == (1, 1, 100.0)
    assert figures(dataclasses.replace(scored, horizon_s=60)).episodes == 2
    early = dataclasses.replace(story(spikes=[(700, 710)], alarms=[(401, 710)]), horizon_s=300)
    assert figures(early).lead_median_s == 599.0
    assert pooled([scored.only(scored.time >= START)]).horizon_s == 300


def test_onsets_begin_in_calm() -> None:
    """A spike after a volatile minute is no onset; an onset that is caught late does not count."""
    found = figures(
        story(spikes=[(500, 600), (1500, 1600), (2500, 2700)], alarms=[(500, 501), (2600, 2700)], wild=(1400, 1550))
    )
    assert (found.episodes, found.onsets, found.onsets_caught) == (3, 2, 1)
    assert found.onset_recall == 0.5


def test_an_alarm_that_is_always_on_catches_nothing_after_its_cap() -> None:
    """It is one alarm of five minutes, which catches the one event that begins within them."""
    spikes = [(200, 230), (295, 320), (900, 1000), (2000, 2100)]
    found = figures(story(spikes, alarms=[(0, 3601)]))
    assert (found.alarms, found.caught, found.in_time, found.onsets_caught) == (1, 1, 1, 1)
    assert found.alarm_share == pytest.approx(300 / 3600)
    assert found.lead_median_s == 120.0


def test_an_alarm_catches_one_event_only() -> None:
    """Of two events during one alarm the first is caught; an alarm that opens in between catches the second."""
    spikes = [(500, 510), (600, 640)]
    assert figures(story(spikes, alarms=[(490, 640)])).caught == 1
    both = story(spikes, alarms=[(490, 511), (571, 640)])
    assert (figures(both).caught, figures(both).alarms) == (2, 2)


def slow_leads(scored: Scored) -> dict[int, float]:
    """Time of each caught event's first row → lead, by searching all alarms and events of one product."""
    alarms: list[list[int]] = []
    events: list[list[int]] = []
    tracker = EpisodeTracker(float(scored.threshold[0]), product="X")
    for row, probability in enumerate(scored.probability.tolist()):
        tracker.update(int(scored.time[row]), probability)
        if tracker.current is not None:
            if not alarms or alarms[-1][0] != tracker.current.opened:
                alarms.append([tracker.current.opened, 0])
            alarms[-1][1] = int(scored.time[row])
    for time in scored.time[scored.y == 1].tolist():
        if events and time - events[-1][1] < 60 * SECOND:
            events[-1][1] = time
        else:
            events.append([time, time])
    leads: dict[int, float] = {}
    for opened, last in alarms:
        first = next((first for first, end in events if opened <= end and last >= first), None)
        if first is not None and first not in leads:
            leads[first] = min(120.0, (first + 60 * SECOND - opened) / SECOND)
    return leads


@pytest.mark.parametrize("seed", range(5))
def test_leads_equal_a_search_over_all_alarms_and_events(seed: int) -> None:
    """The same events are caught with the same leads."""
    scored = market(20_000, seed=seed, memory=60.0, skill=2.0)
    expected = slow_leads(scored)
    assert len(expected) > 20
    assert find_events(scored).lead_s.tolist() == [pytest.approx(lead) for _, lead in sorted(expected.items())]


spans = st.lists(st.tuples(st.integers(0, 3500), st.integers(1, 400)), max_size=12)


@given(spans, st.integers(0, 3600))
def test_a_constant_alarm_catches_at_most_what_its_opening_precedes(events: list[tuple[int, int]], start: int) -> None:
    """A score that stays high from some second on is one alarm, and catches one event at most."""
    scored = story([(at, at + length) for at, length in events], alarms=[(start, 3601)])
    found = find_events(scored)
    assert len(found.lead_s) <= 1
    followed = any(at <= start + 300 and at + length > start for at, length in events)
    assert len(found.lead_s) == followed


def test_no_spikes_and_no_alarms_are_undefined() -> None:
    """Nothing to catch has no recall, no alarm no precision; none an hour is a figure."""
    found = figures(story([], []))
    assert all(map(isnan, (found.recall, found.precision, found.lead_median_s, found.onset_recall)))
    assert found.false_alarms_per_hour == 0.0
    assert found.figures()["recall"] is None
    assert isnan(figures(story([], [], seconds=0)).false_alarms_per_hour)


def test_the_baseline_has_events_of_its_own() -> None:
    """The same spikes, another's alarms."""
    scored = story(spikes=[(500, 600)], alarms=[], wild=(540, 600))
    found = event_figures(find_events(scored, of_baseline=True))
    assert (found.caught, found.lead_median_s) == (1, 20.0)
    assert figures(scored).caught == 0


def test_order_of_rows_does_not_matter() -> None:
    """The order of the rows does not change the result."""
    scored = market(3000, products=2, folds=2)
    shuffled = scored.only(np.random.default_rng(0).permutation(len(scored)))
    assert str(figures(scored)) == str(figures(shuffled))


def test_products_add_up() -> None:
    """Two markets watched at once are two hours of watching, and their counts are the sum of each alone."""
    scored = market(3601, products=2)
    both, alone = figures(scored), [figures(scored.only(scored.product == code)) for code in (0, 1)]
    assert both.hours == pytest.approx(2.0)
    for name in ("episodes", "caught", "in_time", "alarms", "true_alarms", "onsets"):
        assert getattr(both, name) == sum(getattr(part, name) for part in alone), name


def test_intervals_hold_the_figures() -> None:
    """With draws each share has an interval around it, as two numbers."""
    scored = market(20_000)
    found = event_figures(find_events(scored), Draws.of(scored.time, 600, 200))
    for name, interval in found.intervals.items():
        assert interval.low <= getattr(found, name) <= interval.high, name
    assert found.figures()["recall_low"] == found.intervals["recall"].low
