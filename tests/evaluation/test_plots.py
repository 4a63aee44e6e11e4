"""Pictures are PNGs of readable size, and the same data draw the same picture."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.evaluation.markets import market
from volspike.evaluation import Interval, per_hour, reliability
from volspike.evaluation.plots import (
    COLOURS,
    around_episode,
    feature_importance,
    fold_bars,
    hour_bars,
    pr_curve,
    reliability_curve,
    roc_curve,
)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_curves_are_pictures() -> None:
    """Both curves come out as PNGs, for scores with many values and with one."""
    random = np.random.default_rng(0)
    y = (random.random(9000) < 0.1).astype(np.int8)
    scores = {"model": random.random(9000) + y, "last 60 s volatility": np.ones(9000)}
    assert size(pr_curve(y, scores, title="t")) == (880, 760)
    assert size(roc_curve(y, scores, title="t")) == (880, 760)


def test_importance_grows_with_its_features() -> None:
    """More features make a taller picture, so that their names stay readable."""
    few = size(feature_importance({"a": 1.0}, title="t"))
    many = size(feature_importance({f"feature_{n}": 1 / 21 for n in range(21)}, title="t"))
    assert many[1] > few[1]


def test_same_data_same_picture() -> None:
    """Nothing of the moment, the machine or an earlier picture is in a picture."""
    first, second = (feature_importance({"a": 0.7, "b": 0.3}, title="t") for _ in range(2))
    assert first == second


def test_more_scores_than_colours_are_all_drawn() -> None:
    """Ten models are ten curves: colours repeat, but lines do not all coincide."""
    random = np.random.default_rng(0)
    y = (random.random(500) < 0.2).astype(np.int8)
    scores = {f"model {n}": random.random(500) for n in range(len(COLOURS) + 3)}
    fewer = {label: scores[label] for label in list(scores)[: len(COLOURS)]}
    assert pr_curve(y, scores, title="t") != pr_curve(y, fewer, title="t")


def test_reliability_is_drawn_with_and_without_intervals() -> None:
    """Data too short for a bootstrap draw their bins alone."""
    scored = market(4000)
    long = reliability(scored.y, scored.probability, scored.time, resamples=20)
    short = reliability(scored.y[:500], scored.probability[:500], scored.time[:500], resamples=20)
    assert size(reliability_curve({"model": long, "young": short}, title="t")) == (880, 760)


def test_folds_are_bars() -> None:
    """A fold without a figure and a score without intervals leave their places empty."""
    values = {"model": [0.5, float("nan")], "har": [0.4, 0.3]}
    ends = {"model": [Interval(0.4, 0.6), Interval(float("nan"), float("nan"))]}
    assert size(fold_bars(["1", "final"], values, ends, [0.1, 0.2], title="t")) == (1400, 540)


def test_hours_are_bars() -> None:
    """Evaluated hours have bars, the others an empty position."""
    parts = per_hour(market(20_000, step_s=20.0), resamples=20)
    assert any(part.comparison for part in parts)
    assert not all(part.comparison for part in parts)
    assert size(hour_bars(parts, title="t")) == (1400, 540)


def test_an_episode_is_drawn_in_its_time() -> None:
    """One episode is one picture; there is none beyond the last."""
    scored = market(4000, products=2)
    assert size(around_episode(scored, 0, title="t")) == (1400, 540)
    assert around_episode(scored, 0, title="t") != around_episode(scored, 1, title="t")
    with pytest.raises(IndexError):
        around_episode(scored, 100_000, title="t")
