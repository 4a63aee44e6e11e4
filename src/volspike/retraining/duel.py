"""Champion and challenger on the same rows, which neither has learned from: who is to be served?"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.evaluation import Comparison, Scored, compare
from volspike.evaluation.metrics import known
from volspike.labels import spikes
from volspike.market import SECOND_NS, instant, nanoseconds
from volspike.models import Artifact, Metadata

TOLERANCE: Final = 0.05
"""How much of the champion's PR-AUC a challenger may miss while no difference is shown."""

RESAMPLES: Final = 1000


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the challenger may be served, why, and the figures that say so; None where they do not tell."""

    is_not_worse: bool | None
    reason: str
    figures: dict[str, Any]


def unseen_rows(dataset: Dataset, seen_until: int, challenger: Metadata) -> NDArray[np.int64]:
    """The rows beyond all that the champion (until ``seen_until``, ns UTC) and the challenger were made from.

    The windows of the champion's last rows are left out. The challenger's test rows are free to judge it, since no
    choice looked at them.
    """
    reach = dataset.facts.feature_set.longest_window * SECOND_NS
    seen = seen_until + reach
    block = nanoseconds(challenger.data.test_start) if challenger.data.test_start else 0
    return np.flatnonzero(dataset.time > max(seen, block - 1))


def rows_after(dataset: Dataset, instant_ns: int) -> NDArray[np.int64]:
    """The rows whose windows lie beyond an instant (ns UTC) as a whole."""
    return np.flatnonzero(dataset.time > instant_ns + dataset.facts.feature_set.longest_window * SECOND_NS)


def duel(
    dataset: Dataset, rows: NDArray[np.int64], champion: Artifact, challenger: Artifact, resamples: int = RESAMPLES
) -> Verdict:
    """Both models on the rows that both can score; a spike is what the challenger takes for one, from now on."""
    ours, theirs = (model.probability(dataset.columns(model.features)[rows]) for model in (challenger, champion))
    both = np.isfinite(ours) & np.isfinite(theirs) & np.isfinite(dataset.persistence[rows])
    rows, ours, theirs = rows[both], ours[both], theirs[both]
    if len(rows) == 0:
        return Verdict(is_not_worse=None, reason="no row that neither model has seen", figures={})
    tau = challenger.metadata.tau
    scored = Scored(
        time=dataset.time[rows],
        product=dataset.product[rows],
        fold=np.zeros(len(rows), np.int32),
        y=spikes(dataset.future_volatility[rows], tau),
        past_volatility=dataset.persistence[rows] / tau,
        probability=ours,
        threshold=np.full(len(rows), challenger.threshold),
        baseline=theirs,
        baseline_threshold=np.full(len(rows), champion.threshold),
    )
    found = compare(scored, baseline_name="champion", baseline_is_probability=True, resamples=resamples)
    span = {"from": instant(int(dataset.time[rows[0]])), "to": instant(int(dataset.time[rows[-1]]))}
    return judged(found, span)


def judged(found: Comparison, about: dict[str, Any]) -> Verdict:
    """What a comparison says: not worse is better, or not shown to differ and at most 5 % of PR-AUC below.

    Under five spike events nothing is said.
    """
    interval = found.gain_intervals["pr_auc"]
    figures = about | {
        "rows": found.model.rows,
        "spike_events": found.spike_events,
        "base_rate": known(found.model.base_rate),
        "challenger_pr_auc": known(found.model.pr_auc),
        "champion_pr_auc": known(found.baseline.pr_auc),
        "gain": known(found.gain),
        "gain_low": known(interval.low),
        "gain_high": known(interval.high),
        "challenger_brier": known(found.model.brier),
        "champion_brier": known(found.baseline.brier),
    }
    told = found.verdict()
    if told is None:
        reason = f"{found.spike_events} spike events and {found.model.rows:,} rows are too few to tell who is better"
        return Verdict(is_not_worse=None, reason=reason, figures=figures)
    is_near = found.gain >= -TOLERANCE * found.baseline.pr_auc
    span = f"PR-AUC {found.gain:+.4f} against the champion's {found.baseline.pr_auc:.4f}"
    reason = f"{span} (95 % {interval.low:+.4f} … {interval.high:+.4f}): {told}"
    is_not_worse = told == "better" or (told != "worse" and is_near)
    if told not in {"better", "worse"} and not is_near:
        reason += f", but more than {TOLERANCE:.0%} below"
    return Verdict(is_not_worse=is_not_worse, reason=reason, figures=figures)
