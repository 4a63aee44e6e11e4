"""Decision about drift: the decision matrix, and two further reasons for a new model. Pure: no clock, no files.

| drift | PR-AUC | action |
|---|---|---|
| low | 0.20 or more, or unknown | monitor |
| low | below 0.20 | investigate |
| medium | 0.20 or more, or unknown | retrain |
| medium | below 0.20 | retrain at once |
| high | any | retrain at once, and find the cause |

A model is also retrained if its PR-AUC has fallen by more than 5 %, or if drift persists for more than two weeks.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import nan
from typing import Final

import msgspec

from volspike.market import SECOND_NS
from volspike.monitoring.drift import DriftSeverity

FLOOR: Final = 0.20
"""The PR-AUC below which a model is too poor, with or without drift."""

LASTING_DAYS: Final = 14.0

_DAY_NS: Final = 86_400 * SECOND_NS


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
