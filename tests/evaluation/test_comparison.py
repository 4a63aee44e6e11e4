"""A model and a baseline are compared on the same rows and resamples."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest

from tests.evaluation.markets import SECOND, autoregressive, market
from volspike.evaluation import Comparison, Scored, compare
from volspike.evaluation.bootstrap import FIGURES
from volspike.evaluation.scored import BLOCK_S, block_length, spike_events


def compared(skill: float, rows: int = 20_000) -> Comparison:
    return compare(market(rows, skill=skill), resamples=200)


def test_a_better_model_gains() -> None:
    """Where the model knows more, the interval of the difference lies above zero, and so it is called."""
    found = compared(skill=3.0)
    assert found.gain_intervals["pr_auc"].low > 0
    assert found.gain_intervals["pr_auc"].low < found.gain < found.gain_intervals["pr_auc"].high
    assert found.verdict() == "better"


def test_a_worse_model_loses() -> None:
    """A model that knows nothing is worse than half a knowledge."""
    assert compared(skill=0.0).verdict() == "worse"


def test_an_equal_model_gains_nothing() -> None:
    """The same ranking as a probability has a gain of exactly zero in the areas, in every resample."""
    scored = market()
    found = compare(scored.with_baseline(np.log(scored.probability), np.log(scored.threshold)), resamples=50)
    for name in ("pr_auc", "roc_auc", "f1"):
        assert (found.gain_intervals[name].low, found.gain_intervals[name].high) == (0.0, 0.0)
    assert found.verdict() == "not shown to differ"


def test_lower_losses_are_better() -> None:
    """A sharper probability has a log loss below the baseline's, and that is no loss."""
    scored = market(20_000)
    scored = replace(scored, probability=np.where(scored.y == np.roll(scored.y, 5), scored.y * 0.6 + 0.1, 0.3))
    dull = scored.with_baseline(np.full(len(scored), 0.1), scored.threshold)
    found = compare(dull, baseline_name="constant", baseline_is_probability=True, resamples=100)
    assert found.gain_of("log_loss") < 0
    assert found.gain_intervals["brier"].high < 0
    assert found.verdict("log_loss") == found.verdict("brier") == "better"


def test_intervals_hold_the_figures() -> None:
    """Each figure lies within its interval."""
    found = compared(skill=1.0)
    assert set(found.model_intervals) == set(FIGURES)
    for name, interval in found.model_intervals.items():
        assert interval.low <= getattr(found.model, name) <= interval.high, name


def test_interval_of_the_gain_holds_the_truth() -> None:
    """Two models that know as much differ by nothing in the long run: nine intervals in ten and more say so."""
    covered = 0
    for trial in range(30):
        random = np.random.default_rng(trial)
        level, first, second = (autoregressive(random, 3000, 10.0) for _ in range(3))
        scored = market(3000, step_s=6.0)
        scored = replace(scored, y=(level > 1.28).astype(np.int8), probability=1 / (1 + np.exp(-level - first)))
        found = compare(scored.with_baseline(level + second, scored.threshold), resamples=150)
        interval = found.gain_intervals["pr_auc"]
        covered += interval.low <= 0.0 <= interval.high
    assert covered >= 25


def test_figures_are_numbers_or_none() -> None:
    """Undefined metrics are None, because JSON has no NaN; the baseline is listed under its name."""
    figures = compare(market(300), baseline_name="har").figures()
    budgets = {f"minutes_{budget}_per_day" for budget in (15, 30, 60)}
    groups = {"model", "har", "gain", "pr_auc", "folds", "days", "calm", "model_events", "har_events"}
    assert set(figures) == groups | budgets
    assert figures["har"]["brier"] is None
    assert figures["model"]["pr_auc_gain_low"] is None
    assert figures["model"]["spike_events"] == 1
    for part in figures.values():
        assert all(value is None or not isnan(value) for value in part.values())


def test_few_events_are_no_verdict() -> None:
    """Five blocks of time may contain two spikes: the interval exists and allows no conclusion."""
    scored = market(8000)
    y = np.zeros(len(scored), np.int8)
    y[100:160] = y[5000:5060] = 1
    found = compare(replace(scored, y=y), resamples=100)
    assert found.spike_events == 2
    assert not found.is_judgeable
    assert found.verdict() is None


def test_order_and_age_of_rows_do_not_matter() -> None:
    """Rows shuffled, or all of them a year later, give the same figures and intervals."""
    scored = market(4000, folds=2)
    shuffled = scored.only(np.random.default_rng(0).permutation(len(scored)))
    later = replace(scored, time=scored.time + 365 * 86_400 * SECOND)
    first = compare(scored, resamples=20).figures()
    for other in (shuffled, later):
        for name, figures in compare(other, resamples=20).figures().items():
            assert figures == pytest.approx(first[name]), name


def test_spikes_five_minutes_apart_are_one_event() -> None:
    """Hundreds of rows in one minute are one event; only runs more than five minutes apart are separate."""
    minute = np.arange(60) * SECOND
    assert spike_events(np.array([], np.int64)) == 0
    assert spike_events(minute) == 1
    assert spike_events(np.concatenate([minute + 361 * SECOND, minute, minute + 7000 * SECOND])) == 3


def test_blocks_grow_with_episodes() -> None:
    """Ten minutes at least; spikes that last five minutes take blocks of four times as long and their horizon."""

    def spiking(seconds: int) -> Scored:
        scored = market(4000)
        return replace(scored, y=(np.arange(4000) % 1000 < seconds).astype(np.int8))

    assert block_length(spiking(0)) == block_length(spiking(30)) == BLOCK_S
    assert block_length(spiking(301)) == pytest.approx(4 * 360)
