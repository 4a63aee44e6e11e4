"""The verdict on a challenger rests on the interval of the difference on held-out rows; values at each limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.lifecycle.conftest import until
from tests.training.markets import SECOND
from volspike.datasets import Dataset
from volspike.evaluation import Comparison, Interval, Scored, compare
from volspike.lifecycle.challenger import (
    MOST_SHADOW_DAYS,
    Champion,
    Shadow,
    Verdict,
    compare_challenger,
    evaluate_shadow,
    held_out_rows,
    reach_verdict,
    rows_after,
)
from volspike.market import parse_time
from volspike.models import Artifact


def comparison(ours: float, theirs: float, *, seconds: int = 30_000, seed: int = 0) -> Comparison:
    """Two scores of one market, with the given signal strengths."""
    random = np.random.default_rng(seed)
    regime = np.repeat(random.normal(size=seconds // 100), 100)
    y = (regime + 0.3 * random.normal(size=seconds) > 1.3).astype(np.int8)
    shared = random.normal(size=seconds)
    scores = [1 / (1 + np.exp(-(strength * regime + shared))) for strength in (ours, theirs)]
    n = np.zeros(seconds)
    scored = Scored(
        time=np.arange(seconds, dtype=np.int64) * SECOND,
        product=n.astype(np.int32),
        fold=n.astype(np.int32),
        y=y,
        past_volatility=n,
        probability=scores[0],
        threshold=n + 0.5,
        baseline=scores[1],
        baseline_threshold=n + 0.5,
    )
    return compare(scored, baseline_name="champion", baseline_is_probability=True, resamples=200)


def test_rows_that_a_model_cannot_score_count_against_it(
    whole: Dataset, trained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its missed spikes cost it the promotion; the rows stay in the comparison, and the figures count them."""
    champion = Artifact.load(trained_folder / "good" / "logistic")
    rows = np.arange(8_000, 16_000)
    fair = compare_challenger(whole, rows, champion, champion, resamples=100)
    assert fair.is_not_worse
    blinded = replace(whole, x=whole.x.copy())
    blinded.x[:, blinded.names.index(champion.features[0])] = np.where(
        whole.future_volatility > np.median(whole.future_volatility), np.nan, 0.0
    )
    challenger = Artifact.load(trained_folder / "good" / "logistic")
    monkeypatch.setattr(challenger, "score_rows", lambda _, chosen: champion.score_rows(blinded, chosen))
    found = compare_challenger(whole, rows, champion, challenger, resamples=100)
    assert found.is_not_worse is False
    assert found.figures["rows"] == fair.figures["rows"]
    assert (found.figures["challenger_unscored_rows"] > 3_000, found.figures["champion_unscored_rows"]) == (True, 0)


@pytest.mark.parametrize(
    ("ours", "theirs", "is_not_worse", "outcome"),
    [(3.0, 1.0, True, "better"), (1.0, 3.0, False, "worse"), (2.0, 2.0, True, "not shown to differ")],
)
def test_verdict_by_interval(ours: float, theirs: float, is_not_worse: bool, outcome: str) -> None:
    """Better passes, worse does not, and a challenger that is not shown to differ passes."""
    verdict = reach_verdict(comparison(ours, theirs), {})
    assert verdict.is_not_worse is is_not_worse
    assert verdict.reason.endswith(outcome)


def test_few_events_leave_the_verdict_open() -> None:
    """With fewer than five spike events the verdict is undecided, whatever the scores."""
    verdict = reach_verdict(comparison(3.0, 1.0, seconds=900, seed=2), {})
    assert verdict.is_not_worse is None
    assert "too few" in verdict.reason


def test_verdict_contains_the_figures_of_both() -> None:
    """The figures name challenger, champion and the rows compared."""
    figures = reach_verdict(comparison(3.0, 1.0), {"from": "then"}).figures
    assert figures["challenger_pr_auc"] > figures["champion_pr_auc"]
    assert (figures["from"], figures["rows"]) == ("then", 30_000)


@pytest.mark.parametrize(("below", "is_not_worse"), [(0.0, True), (1e-12, False)])
def test_tolerance_is_inclusive(below: float, is_not_worse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the tolerated share below the champion passes, anything below that does not."""
    monkeypatch.setattr("volspike.lifecycle.challenger.TOLERANCE", 0.0625)  # exact in binary, as are the scores
    equal = comparison(2.0, 2.0)
    close = replace(
        equal,
        model=replace(equal.model, pr_auc=0.46875 - below),
        baseline=replace(equal.baseline, pr_auc=0.5),
        gain_intervals=equal.gain_intervals | {"pr_auc": Interval(-0.1, 0.1)},
    )
    assert reach_verdict(close, {}).is_not_worse is is_not_worse


def test_gain_interval_that_touches_zero_shows_no_difference() -> None:
    """An interval that ends exactly at 0 is neither better nor worse."""
    equal = comparison(2.0, 2.0)
    for low, high in ((0.0, 0.1), (-0.1, 0.0)):
        touching = replace(equal, gain_intervals=equal.gain_intervals | {"pr_auc": Interval(low, high)})
        assert touching.verdict() == "not shown to differ"


def shadow_verdict(whole: Dataset, trained_folder: Path, *, hours: float, age_s: int) -> Verdict:
    """The verdict on a challenger ``age_s`` seconds into shadow, of which ``hours`` are required.

    The market has exactly two hours whose windows lie after the challenger's data.
    """
    challenger = Artifact.load(trained_folder / "good" / "logistic")
    window = whole.facts.feature_set.longest_window
    dataset = until(whole, 6000 + window + 7201)
    champion = Champion(Artifact.load(trained_folder / "blind" / "logistic"), is_own=True)
    shadow = Shadow(since="2026-01-01T00:00:00Z", hours=hours, reason="drift")
    now_ns = parse_time(shadow.since) + age_s * SECOND
    return evaluate_shadow(dataset, champion, challenger, shadow, now_ns)


def test_shadow_hours_are_inclusive(whole: Dataset, trained_folder: Path) -> None:
    """A challenger is compared once exactly the required hours are recorded, and not before."""
    assert "hours in shadow" not in shadow_verdict(whole, trained_folder, hours=2.0, age_s=0).reason
    assert shadow_verdict(whole, trained_folder, hours=2.0001, age_s=0).reason == "2.0 of 2.0001 hours in shadow"


def test_challenger_is_rejected_after_more_than_14_days(whole: Dataset, trained_folder: Path) -> None:
    """After exactly 14 days the challenger still waits; a second later it is rejected."""
    days = int(MOST_SHADOW_DAYS * 86_400)
    assert shadow_verdict(whole, trained_folder, hours=100.0, age_s=days).is_not_worse is None
    assert shadow_verdict(whole, trained_folder, hours=100.0, age_s=days + 1).is_not_worse is False


def test_rows_after_a_time_have_their_windows_after_it(whole: Dataset) -> None:
    """The row whose longest window begins exactly at the time is excluded, the next one is included."""
    window = whole.facts.feature_set.longest_window
    rows = rows_after(whole, int(whole.time[100]))
    assert rows[0] == 100 + window + 1


def test_held_out_rows_begin_with_the_challengers_final_block(whole: Dataset, trained_folder: Path) -> None:
    """The first row of the final block is held out; the last row before it is not."""
    metadata = Artifact.load(trained_folder / "good" / "logistic").metadata
    rows = held_out_rows(whole, 0, metadata)
    assert int(whole.time[rows[0]]) == parse_time(metadata.data.test_start)
