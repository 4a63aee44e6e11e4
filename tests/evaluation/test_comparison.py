"""A model and persistence are compared on the same rows and resamples."""

from __future__ import annotations

from math import isnan

import numpy as np

from volspike.evaluation import Comparison, compare
from volspike.evaluation.comparison import spike_events


def compared(skill: float, rows: int = 8000) -> Comparison:
    random = np.random.default_rng(0)
    y = (random.random(rows) < 0.1).astype(np.int8)
    score = random.normal(size=rows)
    time = np.arange(rows, dtype=np.int64) * 1_000_000_000
    probability = 1 / (1 + np.exp(2 - score - skill * y))
    return compare(y, probability, score + 0.5 * y, time, threshold=0.5, persistence_threshold=1.0)


def test_a_better_model_gains() -> None:
    """Where the model knows more, the interval of the difference lies above zero."""
    found = compared(skill=2.0)
    assert found.gain_pr_auc.low > 0
    assert found.gain_pr_auc.low < found.gain < found.gain_pr_auc.high


def test_an_equal_model_gains_nothing() -> None:
    """The same ranking told as a probability gains exactly nothing, in every resample."""
    found = compared(skill=0.5)
    assert abs(found.gain) < 1e-12
    assert abs(found.gain_pr_auc.high) < 1e-12


def test_figures_are_numbers_or_none() -> None:
    """Undefined figures are None: JSON has no NaN."""
    figures = compared(skill=1.0, rows=300).figures()
    assert figures["persistence"]["brier"] is None
    assert figures["model"]["pr_auc_gain_low"] is None
    assert not any(isinstance(value, float) and isnan(value) for part in figures.values() for value in part.values())


def test_spikes_a_block_apart_are_one_event() -> None:
    """Rows by the hundred in one minute are one event; only stretches more than five minutes apart count anew."""
    second = 1_000_000_000
    minute = np.arange(60) * second
    assert spike_events(np.array([], np.int64)) == 0
    assert spike_events(minute) == 1
    assert spike_events(np.concatenate([minute + 361 * second, minute, minute + 7000 * second])) == 3
