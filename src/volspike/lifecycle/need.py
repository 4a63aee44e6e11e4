"""The options of a retraining run, and the decision whether to train: drift, live performance, and new data.

| drift | PR-AUC | action |
|---|---|---|
| low | 0.20 or more, or unknown | monitor |
| low | below 0.20 | investigate |
| medium | 0.20 or more, or unknown | retrain |
| medium | below 0.20 | retrain at once |
| high | any | retrain at once, and find the cause |

A model is also retrained if its PR-AUC has fallen by more than 5 %, if drift persists for more than two weeks, or if
there is as much new data as it was trained on. ``decide`` is pure: it uses no clock and no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from math import nan
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import structlog

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData, UnreadableFile, UsageError
from volspike.evaluation.metrics import known
from volspike.lifecycle.challenger import Champion, rows_after
from volspike.lifecycle.promotion import read_history
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.models import DETECTORS, Metadata
from volspike.monitoring.block_permutation import DriftSample
from volspike.monitoring.drift import Drift, DriftSeverity, check_drift
from volspike.monitoring.performance_drift import PerformanceDrift, recent_performance
from volspike.monitoring.results import RESULTS
from volspike.training.tracking import TrackingSettings

OWN_MARKET_HOURS: Final = 6.0
"""Hours of its own recordings from which an installation trains its first own model."""

FLOOR: Final = 0.20
"""The PR-AUC below which a model is too poor, with or without drift."""

LASTING_DAYS: Final = 14.0

_DAY_NS: Final = 86_400 * SECOND_NS

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRequest:
    """Options of a retraining run.

    ``features`` is a labelled feature file; without it the newest ``days`` of the recordings in ``tape`` are replayed.
    ``if_needed`` trains only if drift, delayed labels or new data require it. A challenger that is no worse waits for
    ``shadow_hours`` of recorded market; with 0 it is promoted at once. ``only_shadow`` evaluates a waiting challenger
    and trains nothing. ``outcomes`` is the database of live predictions, ``trigger`` the caller's name in the history.
    """

    features: Path | None = None
    tape: Path = Path("data/raw")
    artifacts: Path = Path("models/artifacts")
    outcomes: Path = Path("data/outcomes.sqlite")
    results: Path = RESULTS
    models: tuple[str, ...] = ("har", "logistic", "lightgbm")
    if_needed: bool = False
    only_shadow: bool = False
    trigger: str = "by hand"
    days: float = 14.0
    shadow_hours: float = 24.0
    folds: int = 5
    search: int = 0
    most_rows: int = 400_000
    seed: int = 0
    tracking: TrackingSettings = field(default_factory=TrackingSettings)

    def check(self) -> None:
        """Reject invalid options before any file is read.

        Raises:
            UsageError: an unknown model, or hours, days or rows out of range.
        """
        available = tuple(DETECTORS)  # `in DETECTORS` would import the model's learning library
        unknown = [name for name in self.models if name not in available]
        if unknown or not self.models:
            problem = f"no model named {', '.join(unknown)}" if unknown else "no model was named"
            raise UsageError(f"{problem}; choose from {DETECTORS.describe()}")
        if self.shadow_hours < 0 or self.days <= 0 or self.most_rows < 1000:
            raise UsageError("--shadow-hours must be 0 or more, --days above 0, and the rows at least 1000")
        self.tracking.check()


class Action(StrEnum):
    """The action, from the least to the most urgent."""

    MONITOR = "monitor"
    INVESTIGATE = "investigate"
    RETRAIN = "retrain"
    RETRAIN_NOW = "retrain_now"

    @property
    def calls_for_training(self) -> bool:
        """Whether to train a new model."""
        return self in {Action.RETRAIN, Action.RETRAIN_NOW}


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of the decision.

    Attributes:
        severity: drift of the data set; None if unknown.
        pr_auc: PR-AUC of the served model over recent weeks; NaN if there are too few outcomes.
        has_fallen: whether it is significantly more than 5 % below the model's reference.
        drift_days: for how many days every check has found drift.
    """

    severity: DriftSeverity | None = None
    pr_auc: float = nan
    has_fallen: bool = False
    drift_days: float = 0.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An action and its reasons."""

    action: Action
    reasons: tuple[str, ...]


def matrix_action(severity: DriftSeverity, pr_auc: float) -> Action:
    """The action of the decision matrix; an unknown PR-AUC (NaN) does not count as poor."""
    is_poor = pr_auc < FLOOR
    match severity:
        case DriftSeverity.HIGH:
            return Action.RETRAIN_NOW
        case DriftSeverity.MEDIUM:
            return Action.RETRAIN_NOW if is_poor else Action.RETRAIN
        case DriftSeverity.LOW:
            return Action.INVESTIGATE if is_poor else Action.MONITOR


def decide(evidence: Evidence) -> Decision:
    """The action of the matrix, raised to retraining if performance has fallen or drift persists."""
    severity, pr_auc = evidence.severity or DriftSeverity.LOW, evidence.pr_auc
    action = matrix_action(severity, pr_auc)
    drift = "unknown" if evidence.severity is None else severity.value
    known = "unknown" if pr_auc != pr_auc else f"{pr_auc:.3f} ({'below' if pr_auc < FLOOR else 'not below'} {FLOOR})"  # noqa: PLR0124
    reasons = [f"drift is {drift}, PR-AUC is {known}: {action.value}"]
    if evidence.has_fallen:
        reasons.append("PR-AUC has fallen by more than 5 %")
    if evidence.drift_days > LASTING_DAYS:
        reasons.append(f"drift has lasted {evidence.drift_days:.0f} days, more than {LASTING_DAYS:.0f}")
    if len(reasons) > 1 and not action.calls_for_training:
        action = Action.RETRAIN
    return Decision(action=action, reasons=tuple(reasons))


def drift_days(checks: Iterable[tuple[int, DriftSeverity]], now_ns: int) -> float:
    """For how many days every check until now has found drift; ``checks`` are (ns UTC, severity), in any order.

    >>> day = 86_400 * 10**9
    >>> drift_days([(0, DriftSeverity.HIGH), (day, DriftSeverity.LOW), (2 * day, DriftSeverity.MEDIUM)], 5 * day)
    3.0
    """
    begun = now_ns
    for time_ns, severity in sorted(checks, reverse=True):
        if not severity.is_drift:
            break
        begun = time_ns
    return max(0, now_ns - begun) / _DAY_NS


class RetrainingNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to train, the reasons, and the evidence; ``drift`` and ``performance`` are None if unknown."""

    is_needed: bool
    reasons: tuple[str, ...]
    decision: Decision
    drift: Drift | None
    performance: PerformanceDrift | None
    new_hours: float

    def figures(self) -> dict[str, Any]:
        """The evidence, for the history."""
        figures: dict[str, Any] = {"new_hours": round(self.new_hours, 2), "action": self.decision.action.value}
        if self.drift is not None:
            figures |= {"drift_share": self.drift.share, "features_judged": self.drift.tested}
        if self.performance is not None:
            live = msgspec.structs.asdict(self.performance)
            figures |= {f"live_{name}": known(value) for name, value in live.items()}
        return figures

    @property
    def severity(self) -> str:
        """The severity of the drift; "" if unknown."""
        return "" if self.drift is None or self.drift.severity is None else self.drift.severity.value


def assess_need(request: RetrainingRequest, dataset: Dataset, champion: Champion, now_ns: int) -> RetrainingNeed:
    """Compare the rows since the champion's training with those before, and read the outcomes of its predictions.

    Outcomes that cannot be read count as unknown, which is one of the reasons returned.
    """
    metadata = champion.artifact.metadata
    end_ns = champion.data_end_ns
    names = tuple(name for name in champion.artifact.features if name in dataset.names)
    newer = DriftSample.of(dataset, rows_after(dataset, end_ns), names)
    older = DriftSample.of(dataset, np.flatnonzero(dataset.time <= end_ns), names)
    drift, drift_reasons = _measure_drift(older, newer, request.seed)
    performance, performance_reasons = _measure_performance(request.outcomes, metadata)
    is_known = performance is not None and performance.is_conclusive
    decision = decide(
        Evidence(
            severity=None if drift is None else drift.severity,
            pr_auc=performance.pr_auc if performance is not None and is_known else nan,
            has_fallen=performance is not None and performance.has_fallen,
            drift_days=drift_days(_past_checks(request.artifacts, metadata.created), now_ns),
        )
    )
    hours = newer.span_s / 3600.0
    data_reasons = _new_data_reasons(champion, hours)
    return RetrainingNeed(
        is_needed=decision.action.calls_for_training or bool(data_reasons),
        reasons=(*decision.reasons, *drift_reasons, *performance_reasons, *data_reasons),
        decision=decision,
        drift=drift,
        performance=performance,
        new_hours=hours,
    )


def _measure_drift(older: DriftSample, newer: DriftSample, seed: int) -> tuple[Drift | None, tuple[str, ...]]:
    if not len(older) or not len(newer):
        side = "newer" if len(older) else "older"
        return None, (f"drift not measured: no row is {side} than the training data of the served model",)
    try:
        return check_drift(older, newer, seed=seed), ()
    except NotEnoughData as error:
        return None, (f"drift not measured: {error}",)


def _measure_performance(outcomes: Path, metadata: Metadata) -> tuple[PerformanceDrift | None, tuple[str, ...]]:
    try:
        return recent_performance(outcomes, metadata), ()
    except UnreadableFile as error:
        return None, (f"live performance not measured: {error}",)


def _past_checks(artifacts: Path, since: str) -> list[tuple[int, DriftSeverity]]:
    """Time and severity of each drift check since the champion was trained; none if the history cannot be read."""
    since_ns = parse_time(since)
    checks = []
    try:
        history = read_history(artifacts)
    except UnreadableFile as error:
        _log.error("history_not_read", file=error.file, reason=error.reason)
        return []
    for entry in history:
        with suppress(ValueError):  # a line with another time or severity is as good as a damaged one
            if entry.severity and parse_time(entry.time) >= since_ns:
                checks.append((parse_time(entry.time), DriftSeverity(entry.severity)))
    return checks


def _new_data_reasons(champion: Champion, new_hours: float) -> tuple[str, ...]:
    """A reason to train if there is enough new data, whatever drift and performance say."""
    if not champion.is_own:
        if new_hours < OWN_MARKET_HOURS:
            return ()
        return (f"the shipped model is served, and {new_hours:.1f} hours of this market are available for training",)
    data = champion.artifact.metadata.data
    trained_hours = (parse_time(data.end) - parse_time(data.start)) / 3.6e12
    if new_hours < max(trained_hours, OWN_MARKET_HOURS):
        return ()
    since = format_time(parse_time(data.start) // 10**9 * 10**9)
    return (f"{new_hours:.1f} new hours are as many as the model was trained on (from {since})",)
