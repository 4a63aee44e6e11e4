"""Which model a challenger has to match: the one in production, or the one that ships for a market of this kind.

Champion and challenger on the same rows, which neither has learned from: who is to be served?

A challenger that won waits in shadow: beside the champion it scores what is recorded, and counts for nothing yet.

Live rows and replayed ones are the same bit for bit, so that what it would have said live is what it says of the tape:
the process that listens to the market has no second model to carry.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.errors import ArtifactCorrupt, UsageError
from volspike.evaluation import Comparison, Scored, compare
from volspike.evaluation.metrics import known
from volspike.labels import spikes
from volspike.lifecycle.promotion import CHALLENGER, SHADOW_FILE, load_production
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.models import DEFAULT_MODEL, METADATA_FILE, SIMULATED_MODEL, Artifact, Metadata
from volspike.models.artifact import replace_folder
from volspike.models.choice import holds_model


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The model that is served; ``is_own`` where it was put into production, and does not merely come with volspike."""

    artifact: Artifact
    is_own: bool

    @property
    def seen_until(self) -> int:
        """The end (ns UTC) of what it was made from; 0 for the shipped model of a simulated market, which had another
        clock."""
        metadata = self.artifact.metadata
        return 0 if metadata.simulated and not self.is_own else parse_time(metadata.data.end)


def champion_for(artifacts: Path, *, simulated: bool) -> Champion:
    """The champion of a real or a simulated market.

    Raises:
        UsageError: the rows are simulated and a model of a real market is in production, which none of them may touch.
        ModelError: what is in production is damaged.
    """
    standing = load_production(artifacts)
    if standing is not None and standing.metadata.simulated == simulated:
        return Champion(Artifact.load(standing.folder), is_own=True)
    if standing is not None and simulated:
        raise UsageError(
            f"{artifacts} serves {standing.metadata.model}, which learned from a real market, and these rows are "
            "simulated: retrain with another --artifacts"
        )
    return Champion(Artifact.load(SIMULATED_MODEL if simulated else DEFAULT_MODEL), is_own=False)


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
    block = parse_time(challenger.data.test_start) if challenger.data.test_start else 0
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
    span = {"from": format_time(int(dataset.time[rows[0]])), "to": format_time(int(dataset.time[rows[-1]]))}
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


MOST_DAYS: Final = 14.0
"""A challenger that no market has judged by then is dropped: it is old itself."""


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """Since when (RFC 3339) a challenger waits, for how many hours of market, why it was trained, and its version in
    the tracker, "" without one."""

    since: str
    hours: float
    reason: str
    version: str = ""


def put_in_shadow(artifacts: Path, challenger: Path, shadow: Shadow) -> Path:
    """Copies a written artifact to ``challenger`` among the artifacts, in place of one that waited there.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = artifacts / CHALLENGER
    files = {file.name: file.read_bytes() for file in challenger.iterdir() if file.is_file()}
    files[SHADOW_FILE] = msgspec.json.format(msgspec.json.encode(shadow)) + b"\n"
    replace_folder(place, files, mark=METADATA_FILE, check=Artifact.load)
    return place


def waiting(artifacts: Path) -> tuple[Artifact, Shadow] | None:
    """The challenger that waits; None where there is none.

    Raises:
        ArtifactCorrupt: its files are not what was written.
    """
    place = artifacts / CHALLENGER
    if not holds_model(place) or not (place / SHADOW_FILE).is_file():
        return None
    try:
        shadow = msgspec.json.decode((place / SHADOW_FILE).read_bytes(), type=Shadow)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{place / SHADOW_FILE}: {error}; remove {place}") from error
    return Artifact.load(place), shadow


def in_shadow(dataset: Dataset, champion: Champion, challenger: Artifact, shadow: Shadow, now_ns: int) -> Verdict:
    """How the challenger did on all that neither model has seen, once enough was recorded since it was made.

    Undecided while there is too little of that; after 14 days without a decision it has lost.
    """
    rows = rows_after(dataset, max(parse_time(challenger.metadata.data.end), champion.seen_until))
    seconds = len(set((dataset.time[rows] // SECOND_NS).tolist()))
    age_days = (now_ns - parse_time(shadow.since)) / (86_400 * SECOND_NS)
    span_h = float(dataset.time[rows[-1]] - dataset.time[rows[0]]) / SECOND_NS / 3600.0 if len(rows) else 0.0
    figures = {"shadow_hours": round(span_h, 2), "shadow_seconds": seconds, "shadow_days": round(age_days, 2)}
    verdict = Verdict(is_not_worse=None, reason=f"{span_h:.1f} of {shadow.hours:g} hours in shadow", figures=figures)
    if span_h >= shadow.hours:
        told = duel(
            dataset, unseen_rows(dataset, champion.seen_until, challenger.metadata), champion.artifact, challenger
        )
        verdict = msgspec.structs.replace(told, figures=told.figures | figures)
    if verdict.is_not_worse is None and age_days > MOST_DAYS:
        reason = f"{verdict.reason}, after {age_days:.0f} days"
        return msgspec.structs.replace(verdict, is_not_worse=False, reason=reason)
    return verdict


def leave_shadow(artifacts: Path) -> None:
    """Removes the challenger that waited: it is served now, or has lost."""
    shutil.rmtree(artifacts / CHALLENGER, ignore_errors=True)
