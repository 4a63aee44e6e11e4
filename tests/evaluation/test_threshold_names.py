"""Thresholds go by names with numbers in them."""

from __future__ import annotations

import numpy as np
import pytest

from volspike.errors import UsageError
from volspike.evaluation.thresholds import check_threshold, chosen_thresholds


@pytest.mark.parametrize(
    "name", ["best_f1", "rate_10", "rate_2.5", "cost_25", "false_alarms_0.5_per_hour", "minutes_45_per_day"]
)
def test_a_name_gives_a_threshold_of_that_name(name: str) -> None:
    """A requested threshold is among the chosen ones, in addition to the usual ones."""
    check_threshold(name)
    random = np.random.default_rng(0)
    y = (random.random(5000) < 0.2).astype(np.int8)
    score = np.clip(0.5 * y + 0.5 * random.random(5000), 0, 1)
    time = np.arange(5000) * 1_000_000_000
    found = chosen_thresholds(y, score, time, np.zeros(5000, np.int32), name)
    assert {name, "best_f1", "rate_10", "cost_10", "minutes_30_per_day"} <= set(found)


@pytest.mark.parametrize(
    "name",
    [
        "f1",
        "rate_0",
        "rate_100",
        "rate_05",
        "cost_",
        "cost_0",
        "false_alarms_2",
        "minutes_0_per_day",
        "minutes_030_per_day",
        "minutes_30",
    ],
)
def test_other_names_are_refused_with_those_that_exist(name: str) -> None:
    """An unknown name, or one with an invalid number, is a usage error that lists the valid names."""
    with pytest.raises(UsageError, match=r"there are best_f1, rate_10 .* and minutes_30_per_day"):
        check_threshold(name)
