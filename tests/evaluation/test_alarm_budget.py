"""Onset recall at a budget of alarm minutes: as counted by hand, and not to be gained by long or constant alarms."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.evaluation.markets import autoregressive, market
from volspike.episodes import EpisodeTracker
from volspike.evaluation import AlarmPoint, BudgetPoint, Scored, SpikeTimeline, alarm_curve, budget_points
from volspike.evaluation.alarm_budget import CURVE_LIMIT, GRID, AlarmScan
from volspike.evaluation.bootstrap import Draws

SECOND = 1_000_000_000
HOUR = 3600


def points(scored: Scored, resamples: int = 50) -> tuple[BudgetPoint, ...]:
    return budget_points(scored, Draws.of(scored.time, 600, resamples))


def curve(scored: Scored, score: NDArray[np.float64]) -> list[AlarmPoint]:
    return alarm_curve(SpikeTimeline.of(scored), score)


def live_alarms(scored: Scored, score: NDArray[np.float64], threshold: float) -> list[tuple[int, int]]:
    """Opening and closing second of the live episodes of one product with one row per second."""
    tracker, found = EpisodeTracker(threshold, product="X"), []
    start = int(scored.time[0])
    for time, value, is_calm in zip(scored.time.tolist(), score.tolist(), scored.is_calm.tolist(), strict=True):
        event = tracker.update(time, value, may_open=is_calm)
        if event is not None and event.closed is not None:
            found.append(((event.opened - start) // SECOND, (event.closed - start) // SECOND))
    if tracker.current is not None:
        found.append(((tracker.current.opened - start) // SECOND, len(score) - 1))
    return found


def events_by_hand(scored: Scored) -> list[tuple[int, int, bool]]:
    """First and last second of each event, and whether it begins in a calm row."""
    found: list[list[int]] = []
    for second in np.flatnonzero(scored.y).tolist():
        if found and second - found[-1][1] < 60:
            found[-1][1] = second
        else:
            found.append([second, second])
    return [(first, last, bool(scored.past_volatility[first] < 1.0)) for first, last in found]


def leads_by_hand(alarms: list[tuple[int, int]], events: list[tuple[int, int, bool]]) -> list[int]:
    """The leads of the onsets that are caught in time: each alarm catches the first event that it overlaps."""
    leads, caught = [], set()
    for opened, closed in alarms:
        overlapping = [number for number, (first, last, _) in enumerate(events) if opened <= last and closed > first]
        if not overlapping or overlapping[0] in caught:
            continue
        caught.add(overlapping[0])
        first, _, is_onset = events[overlapping[0]]
        if is_onset and opened < first + 60:
            leads.append(min(120, first + 60 - opened))
    return leads


@pytest.mark.parametrize("seed", range(3))
def test_a_point_equals_a_count_of_live_episodes(seed: int) -> None:
    """Minutes, alarms, caught onsets and leads at each budget are those of the episodes that a live tracker opens."""
    scored = market(4 * HOUR, seed=seed, memory=60.0, skill=2.0)
    events = events_by_hand(scored)
    for point in points(scored):
        for score, found in ((scored.probability, point.model), (scored.baseline, point.baseline)):
            alarms = live_alarms(scored, score, found.threshold)
            leads = leads_by_hand(alarms, events)
            seconds = sum(closed - opened for opened, closed in alarms)
            assert found.alarms == len(alarms)
            assert found.minutes_per_day == pytest.approx(seconds * 1440.0 / (len(scored) - 1))
            assert (found.onsets, found.onsets_caught) == (sum(is_onset for *_, is_onset in events), len(leads))
            assert found.lead_median_s == pytest.approx(np.median(leads) if leads else nan, nan_ok=True)


@pytest.mark.parametrize("skill", [0.5, 4.0])
def test_a_point_uses_its_budget_and_no_more(skill: float) -> None:
    """No point exceeds its budget, and the next lower threshold would."""
    scored = market(90_000, products=2, skill=skill)
    timeline = SpikeTimeline.of(scored)
    scan = AlarmScan(timeline.series, timeline.seconds, scored.probability)
    assert scan.days == pytest.approx(2 * 89_999 / 86_400)
    for budget in (15.0, 30.0, 60.0):
        at = scan.cut_within(budget)
        assert scan.minutes_per_day(at) <= budget < scan.minutes_per_day(at + 1)


def test_a_better_score_catches_more_onsets() -> None:
    """Recall grows with the budget, and a score that rises a minute earlier is shown to catch more."""
    level = autoregressive(np.random.default_rng(0), 300_000, 60.0)
    scored = replace(
        market(len(level)),
        y=(level > 2.3).astype(np.int8),
        past_volatility=np.exp(np.roll(level, 60) - 2.3),
        probability=np.exp(level),
        baseline=np.exp(np.roll(level, 55)),
    )
    found = points(scored, resamples=200)
    assert [point.budget for point in found] == [15.0, 30.0, 60.0]
    recalls = [point.model.onset_recall for point in found]
    assert recalls == sorted(recalls)
    last = found[-1].onset_recall
    assert last.model == recalls[-1] > last.baseline
    assert 0.0 < last.gain_interval.low < last.gain < last.gain_interval.high
    assert last.model_interval.low < last.model < last.model_interval.high


def test_a_score_that_is_simply_on_catches_nothing() -> None:
    """A constant score, or one of two values that is high on nearly all rows, has no alarms within a budget."""
    scored = market(20_000)
    always = np.full(len(scored), 0.9)
    mostly = np.where(np.arange(len(scored)) < 100, 0.1, 0.9)
    for score in (always, mostly):
        for point in points(replace(scored, probability=score)):
            assert (point.model.alarms, point.model.onset_recall, point.model.minutes_per_day) == (0, 0.0, 0.0)
        assert curve(scored, score) == []


def test_blinking_alarms_catch_as_many_onsets_as_chance() -> None:
    """Alarms of a minute at random moments catch the share of onsets that the two minutes after each cover."""
    scored = market(400_000, memory=60.0)
    blinking = np.random.default_rng(1).random(len(scored))
    (*_, found) = points(replace(scored, probability=blinking))
    assert 55.0 < found.model.minutes_per_day <= 60.0
    assert found.model.onsets > 500
    assert found.model.onset_recall == pytest.approx(2 * 60.0 / 1440.0, abs=0.03)


def test_a_curve_goes_from_the_highest_threshold_to_its_limit() -> None:
    """Thresholds fall, alarm minutes stay within the limit, and recall at the end is above that at the start."""
    scored = market(90_000, skill=4.0)
    found = curve(scored, scored.probability)
    assert 5 < len(found) <= GRID
    thresholds = [point.threshold for point in found]
    assert thresholds == sorted(thresholds, reverse=True)
    assert all(point.minutes_per_day <= CURVE_LIMIT for point in found)
    assert found[0].onset_recall < found[-1].onset_recall


def test_no_onset_has_no_recall() -> None:
    """Without onsets recall is undefined, and None in the figures; without rows there are no alarms either."""
    scored = market(5000)
    (point, *_) = points(replace(scored, past_volatility=np.ones(len(scored))))
    assert isnan(point.model.onset_recall)
    assert point.figures()["recall_model"] is None
    assert point.figures()["onsets"] == 0
    (nothing, *_) = points(scored.only(np.zeros(len(scored), np.bool_)))
    assert (nothing.model.alarms, nothing.model.minutes_per_day) == (0, 0.0)


def test_order_of_rows_does_not_matter() -> None:
    """The order of the rows changes no figure."""
    scored = market(20_000, products=2, folds=2)
    shuffled = scored.only(np.random.default_rng(0).permutation(len(scored)))
    for one, other in zip(points(scored), points(shuffled), strict=True):
        assert one.figures() == pytest.approx(other.figures())
