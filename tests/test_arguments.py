"""Arguments of the library's functions: every one of every public function, with values that it does not take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import volspike as vs
from tests.test_library import trades
from volspike.arguments import take_each, take_positive, take_whole, take_word
from volspike.errors import UsageError
from volspike.market import Profile

FRAME = trades()
WRONG: dict[str, tuple[Callable[[Any], object], tuple[Any, ...]]] = {
    "paths": (vs.read_tape, (None, 3, [3])),
    "timezone ": (lambda value: vs.read_tape(".", timezone=value), (3, "")),
    "every": (lambda value: vs.features(FRAME, value, product="A-B"), (None, 3, "2s", [])),
    "feature_set": (lambda value: vs.features(FRAME, "1s", value, product="A-B"), (None, 3, "")),
    "windows": (lambda value: vs.features(FRAME, windows=value, product="A-B"), (None, 30, "30", ["30"], [30.0])),
    "leader": (lambda value: vs.features(FRAME, leader=value, product="A-B"), (3, " ")),
    "profile": (lambda value: vs.features(FRAME, profile=value, product="A-B"), (3, "quotes")),
    "gaps": (lambda value: vs.features(FRAME, gaps=value, product="A-B"), (None, 3, "x", [3])),
    "product": (lambda value: vs.features(FRAME, product=value), (3, ["A-B"])),
    "simulated": (lambda value: vs.features(FRAME, product="A-B", simulated=value), (3, "yes")),
    "timezone": (lambda value: vs.features(FRAME, product="A-B", timezone=value), (3, "")),
    "spike": (lambda value: vs.labels(FRAME, value), (None, 3, "")),
    "horizon": (lambda value: vs.labels(FRAME, horizon=value), (None, "60", 60.0, True)),
    "every ": (lambda value: vs.labels(FRAME, every=value), (3, "2s")),
    "gaps ": (lambda value: vs.labels(FRAME, gaps=value), (None, 3, [3])),
    "every  ": (lambda value: vs.load_model().predict(FRAME, every=value), (3, "2s")),
    "gaps  ": (lambda value: vs.load_model().predict(FRAME, gaps=value), (None, 3, [3])),
    "name_or_path": (vs.load_model, (None, 3, [])),
    "model": (lambda value: vs.evaluate(FRAME, value), (None, 3, [])),
    "spike ": (lambda value: vs.evaluate(FRAME, spike=value), (3, "")),
    "budget": (lambda value: vs.evaluate(FRAME, budget=value), ("5", -1, 0, np.nan, True, [])),
    "every   ": (lambda value: vs.evaluate(FRAME, every=value), (3, "2s")),
    "gaps   ": (lambda value: vs.evaluate(FRAME, gaps=value), (None, 3, [3])),
    "every    ": (vs.Engine, (None, 3)),
    "feature_set ": (lambda value: vs.Engine(feature_set=value), (None, 3)),
    "windows ": (lambda value: vs.Engine(windows=value), (None, 3)),
    "leader ": (lambda value: vs.Engine(leader=value), (3, "")),
    "profile ": (lambda value: vs.Engine(profile=value), (None, 3)),
    "tick": (lambda value: vs.Engine().update(value), (None, 3, [])),
    "gap": (lambda value: vs.Engine().mark_gap(value), (None, 3)),
    "snapshot": (lambda value: vs.Engine().restore(value), (None, 3, "x")),
}
"""By the argument (blanks for another function): a call with it, and values that it does not take."""


@pytest.mark.parametrize(
    ("argument", "value"), [(argument, value) for argument, (_, values) in WRONG.items() for value in values]
)
def test_wrong_arguments_are_named(argument: str, value: object) -> None:
    """The error names the argument, what it takes and what it got; no error of Python reaches the caller."""
    call, _ = WRONG[argument]
    with pytest.raises(UsageError, match=rf"^{argument.strip()} must be .*, got ."):
        call(value)


@pytest.mark.parametrize(
    "call",
    [vs.features, vs.labels, vs.evaluate, lambda value: vs.load_model().predict(value)],
)
@pytest.mark.parametrize("value", [None, 3, "ticks.csv", [1.0]])
def test_other_objects_are_no_frames(call: Callable[[Any], object], value: object) -> None:
    """They are named by their type."""
    with pytest.raises(
        UsageError, match=f"^expected a tape or a polars, pandas or Arrow frame, got {type(value).__name__}"
    ):
        call(value)


def test_right_arguments_are_passed_on() -> None:
    """Numbers of NumPy are numbers; words become members; iterators are read once."""
    assert take_whole("n", np.int64(3), "a whole number") == 3
    assert take_positive("x", np.float32(0.5), "a number") == 0.5
    assert take_word("profile", "trade", Profile) is Profile.TRADE
    assert take_each("windows", iter([1, 2]), int, "seconds") == [1, 2]
