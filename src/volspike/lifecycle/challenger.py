"""Champion and challenger: which model must be matched, and whether a new one is no worse on held-out rows.

A challenger that is no worse waits in shadow: it is scored on what is recorded from then on, and not served. Replayed
rows equal live rows bit for bit, so that the live process does not have to run a second model.
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
from volspike.evaluation import Comparison, Scored, compare, rank_unscored_last
from volspike.evaluation.metrics import known
from volspike.lifecycle.promotion import CHALLENGER, SHADOW_FILE, load_production
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.models import DEFAULT_MODEL, METADATA_FILE, SIMULATED_MODEL, Artifact, Metadata
from volspike.models.artifact import replace_folder
from volspike.models.choice import holds_model
from volspike.models.evidence import blocking_limitations, texts
from volspike.stores import rename_damaged

TOLERANCE: Final = 0.05
"""Share of the champion's PR-AUC that a challenger may be below it while no difference is shown."""

RESAMPLES: Final = 1000

MOST_SHADOW_DAYS: Final = 14.0
"""A challenger without a decision by then is rejected: its own data are old."""


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The served model; ``is_own`` if it was promoted here, false for a model that ships with volspike."""

    artifact: Artifact
    is_own: bool

    @property
    def data_end_ns(self) -> int:
        """The end of its training data (ns UTC); 0 for the shipped simulated model, whose clock is unrelated."""
        metadata = self.artifact.metadata
        return 0 if metadata.simulated and not self.is_own else parse_time(metadata.data.end)


def load_champion(artifacts: Path, *, simulated: bool) -> Champion:
    """The champion of a real or a simulated market: the model in production, otherwise the shipped one.

    Raises:
        UsageError: the rows are simulated and a model of a real market is in production.
        ModelError: the model in production is damaged.
    """
    served = load_production(artifacts)
    if served is not None and served.metadata.simulated == simulated:
        return Champion(Artifact.load(served.folder), is_own=True)
    if served is not None and simulated:
        raise UsageError(
            f"{artifacts} serves {served.metadata.model}, which learned from a real market, and these rows are "
            "simulated: retrain with another --artifacts"
        )
    return Champion(Artifact.load(SIMULATED_MODEL if simulated else DEFAULT_MODEL), is_own=False)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the challenger is no worse than the champion (None: undecided), the reason, and the figures."""

    is_not_worse: bool | None
    reason: str
    figures: dict[str, Any]


def refuse_challenger(challenger: Artifact) -> Verdict | None:
    """The verdict on a challenger that must not be promoted whatever its figures are; None for any other."""
    blocking = texts(blocking_limitations(challenger.metadata))
    return Verdict(is_not_worse=False, reason="; ".join(blocking), figures={}) if blocking else None


def held_out_rows(dataset: Dataset, champion_end_ns: int, challenger: Metadata) -> NDArray[np.int64]:
    """The rows that neither model was trained or tuned on.

    They begin one longest window after the champion's data. The challenger's final block may be used, because it
    was not fitted to and could only overrule the choice of its model.
    """
    reach = dataset.facts.feature_set.longest_window * SECOND_NS
    block = parse_time(challenger.data.test_start) if challenger.data.test_start else 0
    return np.flatnonzero(dataset.time > max(champion_end_ns + reach, block - 1))


def rows_after(dataset: Dataset, time_ns: int) -> NDArray[np.int64]:
    """The rows whose windows lie entirely after ``time_ns`` (ns UTC)."""
    return np.flatnonzero(dataset.time > time_ns + dataset.facts.feature_set.longest_window * SECOND_NS)


def compare_challenger(
    dataset: Dataset, rows: NDArray[np.int64], champion: Artifact, challenger: Artifact, resamples: int = RESAMPLES
) -> Verdict:
    """Compare both models on ``rows``, with spikes under the challenger's τ.

    A row that a model cannot score counts against it. Rows that neither can score are left out.
    """
    ours, theirs = (model.score_rows(dataset, rows) for model in (challenger, champion))
    tau = dataset.thresholds(challenger.metadata.spike_definition, challenger.metadata.tau)
    either = (np.isfinite(ours) | np.isfinite(theirs)) & np.isfinite(dataset.persistence[rows]) & np.isfinite(tau[rows])
    rows = rows[either]
    if len(rows) == 0:
        return Verdict(is_not_worse=None, reason="no row is held out from both models", figures={})
    ours, unscored = rank_unscored_last(ours[either], challenger.threshold)
    theirs, champion_unscored = rank_unscored_last(theirs[either], champion.threshold)
    scored = Scored.of(
        dataset,
        rows,
        tau,
        probability=ours,
        threshold=challenger.threshold,
        baseline=theirs,
        baseline_threshold=champion.threshold,
    )
    comparison = compare(scored, baseline_name="champion", baseline_is_probability=True, resamples=resamples)
    facts = {
        "from": format_time(int(dataset.time[rows[0]])),
        "to": format_time(int(dataset.time[rows[-1]])),
        "challenger_unscored_rows": unscored,
        "champion_unscored_rows": champion_unscored,
    }
    return reach_verdict(comparison, facts)


def reach_verdict(comparison: Comparison, facts: dict[str, Any]) -> Verdict:
    """The verdict on a comparison; ``facts`` are added to its figures.

    No worse is: better, or not shown to differ and at most ``TOLERANCE`` below. With fewer than five spike events the
    verdict is undecided.
    """
    interval = comparison.gain_intervals["pr_auc"]
    figures = facts | {
        "rows": comparison.model.rows,
        "spike_events": comparison.spike_events,
        "base_rate": known(comparison.model.base_rate),
        "challenger_pr_auc": known(comparison.model.pr_auc),
        "champion_pr_auc": known(comparison.baseline.pr_auc),
        "gain": known(comparison.gain),
        "gain_low": known(interval.low),
        "gain_high": known(interval.high),
        "challenger_brier": known(comparison.model.brier),
        "champion_brier": known(comparison.baseline.brier),
    }
    outcome = comparison.verdict()
    if outcome is None:
        reason = f"{comparison.spike_events} spike events in {comparison.model.rows:,} rows are too few to decide"
        return Verdict(is_not_worse=None, reason=reason, figures=figures)
    is_close = comparison.gain >= -TOLERANCE * comparison.baseline.pr_auc
    gain = f"PR-AUC {comparison.gain:+.4f} against the champion's {comparison.baseline.pr_auc:.4f}"
    reason = f"{gain} (95 % {interval.low:+.4f} … {interval.high:+.4f}): {outcome}"
    if outcome not in {"better", "worse"} and not is_close:
        reason += f", but more than {TOLERANCE:.0%} below"
    is_not_worse = outcome == "better" or (outcome != "worse" and is_close)
    return Verdict(is_not_worse=is_not_worse, reason=reason, figures=figures)


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A challenger's time in shadow: its start (RFC 3339), the hours of market required, why it was trained, and its
    MLflow version ("": none)."""

    since: str
    hours: float
    reason: str
    version: str = ""


def start_shadow(artifacts: Path, challenger: Path, shadow: Shadow) -> Path:
    """Copy a written artifact to ``challenger``, replacing one that waited there.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = artifacts / CHALLENGER
    files = {file.name: file.read_bytes() for file in challenger.iterdir() if file.is_file()}
    files[SHADOW_FILE] = msgspec.json.format(msgspec.json.encode(shadow)) + b"\n"
    replace_folder(place, files, mark=METADATA_FILE, check=Artifact.load)
    return place


def load_challenger(artifacts: Path) -> tuple[Artifact, Shadow] | None:
    """The challenger in shadow; None if there is none. A damaged one is renamed and no longer waits."""
    place = artifacts / CHALLENGER
    if not holds_model(place) or not (place / SHADOW_FILE).is_file():
        return None
    try:
        shadow = msgspec.json.decode((place / SHADOW_FILE).read_bytes(), type=Shadow)
        return Artifact.load(place), shadow
    except (msgspec.DecodeError, UnicodeDecodeError, ArtifactCorrupt) as error:
        rename_damaged(place, str(error))
        return None


def evaluate_shadow(dataset: Dataset, champion: Champion, challenger: Artifact, shadow: Shadow, now_ns: int) -> Verdict:
    """Compare the challenger with the champion once ``shadow.hours`` were recorded since its data ended.

    Undecided until then, and while there are too few spike events; rejected after 14 days without a decision.
    """
    rows = rows_after(dataset, max(parse_time(challenger.metadata.data.end), champion.data_end_ns))
    seconds = len(set((dataset.time[rows] // SECOND_NS).tolist()))
    age_days = (now_ns - parse_time(shadow.since)) / (86_400 * SECOND_NS)
    span_h = float(dataset.time[rows[-1]] - dataset.time[rows[0]]) / SECOND_NS / 3600.0 if len(rows) else 0.0
    figures = {"shadow_hours": round(span_h, 2), "shadow_seconds": seconds, "shadow_days": round(age_days, 2)}
    verdict = Verdict(is_not_worse=None, reason=f"{span_h:.1f} of {shadow.hours:g} hours in shadow", figures=figures)
    if span_h >= shadow.hours:
        held_out = held_out_rows(dataset, champion.data_end_ns, challenger.metadata)
        compared = compare_challenger(dataset, held_out, champion.artifact, challenger)
        verdict = msgspec.structs.replace(compared, figures=compared.figures | figures)
    if verdict.is_not_worse is None and age_days > MOST_SHADOW_DAYS:
        reason = f"{verdict.reason}; rejected after {age_days:.0f} days without a decision"
        return msgspec.structs.replace(verdict, is_not_worse=False, reason=reason)
    return verdict


def remove_challenger(artifacts: Path) -> None:
    """Delete the challenger in shadow."""
    shutil.rmtree(artifacts / CHALLENGER, ignore_errors=True)
