"""Thresholds lie between scores and do what their names say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from tests.evaluation.markets import market
from volspike.evaluation import (
    alarm_minutes_threshold,
    best_f1_threshold,
    chosen_thresholds,
    cost_threshold,
    event_figures,
    false_alarm_threshold,
    find_events,
    rate_threshold,
)

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=40).filter(
    lambda rows: any(y for y, _ in rows)
)


@given(rows)
def test_no_other_threshold_has_a_better_f1(rows: list[tuple[int, int]]) -> None:
    """Of all cuts that call at most half of the rows the chosen one has the greatest F1; None if none catches any."""
    y, score = np.array([y for y, _ in rows], np.int8), np.array([float(s) for _, s in rows])
    allowed = [cut for cut in np.unique(score) if np.mean(score >= cut) <= 0.5]
    best = max((f1_score(y, score >= cut) for cut in allowed), default=0.0)
    threshold = best_f1_threshold(y, score)
    assert (f1_score(y, score >= threshold) if threshold is not None else 0.0) == pytest.approx(best)


def test_threshold_stands_between_scores() -> None:
    """The last bit of a score turns no call over."""
    threshold = best_f1_threshold(np.array([0, 0, 1, 1], np.int8), np.array([0.1, 0.2, 0.6, 0.7]))
    assert threshold == pytest.approx(0.4)


@pytest.mark.parametrize("y", [[0, 0, 0, 0], [1, 0, 0, 0]])
def test_no_caught_spike_no_threshold(y: list[int]) -> None:
    """Without a spike, or where only an alarm that is always on would catch it, there is nothing to choose by."""
    assert best_f1_threshold(np.array(y, np.int8), np.arange(4.0)) is None


def test_rate_threshold_calls_its_share() -> None:
    """One row in ten reaches the 10 % threshold; where scores are tied, the next lower share that they allow."""
    score = np.random.default_rng(0).random(1000)
    assert np.mean(score >= rate_threshold(score, 0.10)) == pytest.approx(0.10)
    tied = np.repeat([0.1, 0.5, 0.9], [80, 13, 7])
    assert np.mean(tied >= rate_threshold(tied, 0.10)) == pytest.approx(0.07)
    constant = np.full(50, 0.3)
    assert not np.any(constant >= rate_threshold(constant, 0.10))


@given(rows, st.sampled_from([0.5, 1.0, 10.0]))
def test_no_other_threshold_is_cheaper(rows: list[tuple[int, int]], ratio: float) -> None:
    """Of all cuts that call at most half of the rows, and of calling none, the chosen one costs least."""
    y, score = np.array([y for y, _ in rows], np.int8), np.array([float(s) for _, s in rows])

    def cost(called: NDArray[np.bool_]) -> float:
        return ratio * np.count_nonzero(~called & (y == 1)) + np.count_nonzero(called & (y == 0))

    allowed = [score >= cut for cut in np.unique(score) if np.mean(score >= cut) <= 0.5]
    threshold = cost_threshold(y, score, ratio)
    found = cost(score >= (np.inf if threshold is None else threshold))
    assert found == min(map(cost, [np.zeros(len(y), np.bool_), *allowed]))


def test_dearer_spikes_lower_the_threshold() -> None:
    """The more a missed spike costs, the more is called."""
    scored = market(20_000, skill=3.0)
    found = [cost_threshold(scored.y, scored.probability, ratio) for ratio in (1.0, 5.0, 25.0)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[2] is not None
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("most", [1.0, 6.0, 20.0])
def test_false_alarms_stay_within_their_number(most: float) -> None:
    """On the rows it was chosen on the threshold has at most so many false alarms an hour, and catches spikes."""
    scored = market(20_000, products=2, skill=4.0)
    threshold = false_alarm_threshold(scored.y, scored.probability, scored.time, scored.product, most)
    assert threshold is not None
    found = event_figures(find_events(replace(scored, threshold=np.full(len(scored), threshold))))
    assert found.false_alarms_per_hour <= most
    assert found.true_alarms > 0
    assert found.alarm_share <= 0.5


def test_more_false_alarms_allow_a_lower_threshold() -> None:
    """What is allowed more calls no less; where nothing is caught there is no threshold."""
    scored = market(20_000, skill=4.0)
    arrays = (scored.probability, scored.time, scored.product)
    few, many = (false_alarm_threshold(scored.y, *arrays, most) for most in (1.0, 20.0))
    assert few is not None
    assert many is not None
    assert many < few
    assert false_alarm_threshold(np.zeros_like(scored.y), *arrays, 1000.0) is None


@pytest.mark.parametrize("most", [15.0, 60.0, 200.0])
def test_alarm_minutes_stay_within_their_budget(most: float) -> None:
    """On the rows it was chosen on the threshold keeps the budget; the next lower score would not."""
    scored = market(90_000, products=2, skill=4.0)
    threshold = alarm_minutes_threshold(scored.probability, scored.time, scored.product, most)
    lower = float(scored.probability[scored.probability < threshold].max())

    def minutes(at: float) -> float:
        found = event_figures(find_events(replace(scored, threshold=np.full(len(scored), at))))
        return found.alarm_share * 1440.0

    assert 0.8 * most < minutes(threshold) <= most < minutes(lower)


def test_a_constant_score_has_no_alarm_within_a_budget() -> None:
    """A score that cannot rise above itself flags everything or nothing, so nothing, although its alarm is capped."""
    score, time = np.full(5000, 0.3), np.arange(5000) * 10**9
    assert alarm_minutes_threshold(score, time, np.zeros(5000, np.int32), 1000.0) > 0.3


def test_all_thresholds_by_name() -> None:
    """Names describe the criterion of a threshold; without a spike only rates of alarms remain."""
    scored = market(6000, skill=3.0)
    arrays = (scored.probability, scored.time, scored.product)
    usual = ["best_f1", "rate_10", "cost_10", "false_alarms_2_per_hour", "minutes_30_per_day"]
    assert list(chosen_thresholds(scored.y, *arrays, "minutes_30_per_day")) == usual
    assert list(chosen_thresholds(scored.y, *arrays, "rate_2.5")) == [*usual[:2], "rate_2.5", *usual[2:]]
    assert list(chosen_thresholds(np.zeros_like(scored.y), *arrays)) == ["rate_10", "minutes_30_per_day"]


def test_order_of_rows_chooses_nothing() -> None:
    """The order of the validation rows does not change the thresholds."""
    scored = market(3000, products=2)
    other = scored.only(np.random.default_rng(0).permutation(len(scored)))
    first, second = (chosen_thresholds(it.y, it.probability, it.time, it.product) for it in (scored, other))
    assert first == second
