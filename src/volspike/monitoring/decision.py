"""What is to be done about drift: the decision matrix, and what else calls for a new model. Pure: no clock, no files.

| drift | PR-AUC | action |
|---|---|---|
| low | 0.20 or more, or unknown | monitor |
| low | below 0.20 | investigate |
| medium | 0.20 or more, or unknown | retrain |
| medium | below 0.20 | retrain at once |
| high | any | retrain at once, and look for the cause |

Besides, a model is trained anew where its PR-AUC has fallen by more than 5 %, and where drift lasts over two weeks.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import nan
from typing import Final

import msgspec

from volspike.market import SECOND_NS
from volspike.monitoring.drift import Severity

FLOOR: Final = 0.20
"""The PR-AUC below which a model is not good enough whatever the data do."""

LASTING_DAYS: Final = 14.0

_DAY_NS: Final = 86_400 * SECOND_NS


class Action(StrEnum):
    """What to do, from the least to the most urgent."""

    MONITOR = "monitor"
    INVESTIGATE = "investigate"
    RETRAIN = "retrain"
    RETRAIN_NOW = "retrain_now"

    @property
    def calls_for_training(self) -> bool:
        """Whether a new model is to be trained."""
        return self in {Action.RETRAIN, Action.RETRAIN_NOW}


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when the decision is made.

    ``severity`` is the data set's, None where it could not be told. ``pr_auc`` is the served model's over recent
    weeks, NaN where too little came of its predictions. ``has_fallen`` claims that it is more than 5 % below the
    model's reference, by more than chance. ``drift_days`` is for how long every check has found drift.
    """

    severity: Severity | None = None
    pr_auc: float = nan
    has_fallen: bool = False
    drift_days: float = 0.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An action, and why."""

    action: Action
    reasons: tuple[str, ...]


def matrix(severity: Severity, pr_auc: float) -> Action:
    """The action of the decision matrix; a PR-AUC that is not known (NaN) is not taken for a bad one."""
    is_poor = pr_auc < FLOOR
    match severity:
        case Severity.HIGH:
            return Action.RETRAIN_NOW
        case Severity.MEDIUM:
            return Action.RETRAIN_NOW if is_poor else Action.RETRAIN
        case Severity.LOW:
            return Action.INVESTIGATE if is_poor else Action.MONITOR


def decide(evidence: Evidence) -> Decision:
    """The matrix, raised to retraining by a fall of performance or by drift that lasts."""
    severity, pr_auc = evidence.severity or Severity.LOW, evidence.pr_auc
    action = matrix(severity, pr_auc)
    drift = "not known" if evidence.severity is None else severity.value
    known = "not known" if pr_auc != pr_auc else f"{pr_auc:.3f} ({'below' if pr_auc < FLOOR else 'not below'} {FLOOR})"  # noqa: PLR0124
    reasons = [f"drift is {drift}, PR-AUC is {known}: {action.value}"]
    if evidence.has_fallen:
        reasons.append("PR-AUC has fallen by more than 5 %")
    if evidence.drift_days > LASTING_DAYS:
        reasons.append(f"drift has lasted {evidence.drift_days:.0f} days, more than {LASTING_DAYS:.0f}")
    if len(reasons) > 1 and not action.calls_for_training:
        action = Action.RETRAIN
    return Decision(action=action, reasons=tuple(reasons))


def drift_days(checks: Iterable[tuple[int, Severity]], now_ns: int) -> float:
    """For how many days every check up to now found drift; ``checks`` are (ns UTC, severity), in any order.

    >>> day = 86_400 * 10**9
    >>> drift_days([(0, Severity.HIGH), (day, Severity.LOW), (2 * day, Severity.MEDIUM)], 5 * day)
    3.0
    """
    begun = now_ns
    for time_ns, severity in sorted(checks, reverse=True):
        if not severity.is_drift:
            break
        begun = time_ns
    return max(0, now_ns - begun) / _DAY_NS
