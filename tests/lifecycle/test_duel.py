"""Who is to be served is decided on rows that neither has seen, by an interval and not by a point."""

from __future__ import annotations

import numpy as np
import pytest

from volspike.evaluation import Comparison, Scored, compare
from volspike.lifecycle.challenger import judged

SECOND = 10**9


def comparison(ours: float, theirs: float, *, seconds: int = 30_000, seed: int = 0) -> Comparison:
    """Two scores of one market, each as good as its signal is strong."""
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


@pytest.mark.parametrize(
    ("ours", "theirs", "is_not_worse", "told"),
    [(3.0, 1.0, True, "better"), (1.0, 3.0, False, "worse"), (2.0, 2.0, True, "not shown to differ")],
)
def test_verdict_by_interval(ours: float, theirs: float, is_not_worse: bool, told: str) -> None:
    """Better is served, worse is not, and of two that do not differ the newer one is."""
    verdict = judged(comparison(ours, theirs), {})
    assert verdict.is_not_worse is is_not_worse
    assert verdict.reason.endswith(told)


def test_few_events_decide_nothing() -> None:
    """A handful of minutes says nothing, however good they look."""
    verdict = judged(comparison(3.0, 1.0, seconds=900, seed=2), {})
    assert verdict.is_not_worse is None
    assert "too few" in verdict.reason


def test_figures_are_those_of_both() -> None:
    """What is written down names challenger and champion, and the rows it rests on."""
    figures = judged(comparison(3.0, 1.0), {"from": "then"}).figures
    assert figures["challenger_pr_auc"] > figures["champion_pr_auc"]
    assert (figures["from"], figures["rows"]) == ("then", 30_000)
