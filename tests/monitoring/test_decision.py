"""The decision table, case by case, and the other reasons for training."""

from __future__ import annotations

from math import nan

import pytest

from volspike.monitoring.decision import Action, Evidence, decide, drift_days, matrix_action
from volspike.monitoring.drift import DriftSeverity, dataset_severity, drifted_share, feature_severity

LOW, MEDIUM, HIGH = DriftSeverity.LOW, DriftSeverity.MEDIUM, DriftSeverity.HIGH
DAY = 86_400 * 10**9


@pytest.mark.parametrize(
    ("severity", "pr_auc", "action"),
    [
        (LOW, 0.5, Action.MONITOR),
        (LOW, 0.20, Action.MONITOR),
        (LOW, 0.19, Action.INVESTIGATE),
        (LOW, nan, Action.MONITOR),
        (MEDIUM, 0.5, Action.RETRAIN),
        (MEDIUM, 0.19, Action.RETRAIN_NOW),
        (MEDIUM, nan, Action.RETRAIN),
        (HIGH, 0.9, Action.RETRAIN_NOW),
        (HIGH, 0.19, Action.RETRAIN_NOW),
        (HIGH, nan, Action.RETRAIN_NOW),
    ],
)
def test_every_case_of_the_matrix_action(severity: DriftSeverity, pr_auc: float, action: Action) -> None:
    """Drift and PR-AUC determine the action; an unknown PR-AUC does not count as poor."""
    assert matrix_action(severity, pr_auc) is action


@pytest.mark.parametrize(
    ("p_value", "severity"), [(0.0501, LOW), (0.05, MEDIUM), (0.0101, MEDIUM), (0.01, HIGH), (0.0, HIGH), (nan, LOW)]
)
def test_severity_of_a_feature(p_value: float, severity: DriftSeverity) -> None:
    """Low above 0.05, high up to 0.01; a feature without a test has not drifted."""
    assert feature_severity(p_value) is severity


@pytest.mark.parametrize(("share", "severity"), [(0.0, LOW), (0.5, LOW), (0.51, MEDIUM), (0.75, MEDIUM), (0.76, HIGH)])
def test_severity_of_a_data_set(share: float, severity: DriftSeverity) -> None:
    """Medium above one half of the features, high above three quarters."""
    assert dataset_severity(share) is severity


def test_share_counts_medium_and_high() -> None:
    """Features of medium and high severity have drifted; without features the share is 0."""
    assert drifted_share([LOW, MEDIUM, HIGH, LOW]) == 0.5
    assert drifted_share([]) == 0.0


def test_fall_of_performance_calls_for_training() -> None:
    """A model whose performance has fallen is retrained without drift as well."""
    decision = decide(Evidence(severity=LOW, pr_auc=0.5, has_fallen=True))
    assert decision.action is Action.RETRAIN
    assert "fallen" in decision.reasons[-1]


@pytest.mark.parametrize(("days", "trains"), [(14.0, False), (14.1, True)])
def test_drift_that_lasts_calls_for_training(days: float, trains: bool) -> None:
    """Drift for more than two weeks requires retraining, whatever its severity today."""
    assert decide(Evidence(severity=LOW, pr_auc=0.5, drift_days=days)).action.calls_for_training is trains


def test_urgency_is_never_lowered() -> None:
    """Further reasons do not lower an urgent action."""
    assert decide(Evidence(severity=HIGH, pr_auc=0.1, has_fallen=True)).action is Action.RETRAIN_NOW


def test_nothing_known_is_no_alarm() -> None:
    """With unknown drift and performance the action is to monitor, and the reason says so."""
    decision = decide(Evidence())
    assert decision.action is Action.MONITOR
    assert "unknown" in decision.reasons[0]


def test_drift_lasts_since_the_last_calm_check() -> None:
    """A check without drift ends the count; checks may be in any order."""
    checks = [(4 * DAY, HIGH), (DAY, HIGH), (2 * DAY, LOW), (3 * DAY, MEDIUM)]
    assert drift_days(checks, 20 * DAY) == 17.0
    assert drift_days([*checks, (19 * DAY, LOW)], 20 * DAY) == 0.0
    assert drift_days([], 20 * DAY) == 0.0
