"""The need to retrain: every case of the decision table, and the evidence from rows, outcomes and history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path

import msgspec
import pytest

from tests.lifecycle.artifacts import artifact
from tests.lifecycle.conftest import Ask, until
from tests.training.markets import SECOND, market_of
from volspike.lifecycle.challenger import Champion, load_champion
from volspike.lifecycle.need import (
    Action,
    Evidence,
    _new_data_reasons,
    assess_need,
    decide,
    drift_days,
    matrix_action,
)
from volspike.lifecycle.promotion import HistoryEntry, append_entry
from volspike.market import format_time, parse_time
from volspike.models import Artifact
from volspike.monitoring.drift import DriftSeverity

DAY = 86_400 * SECOND
LOW, MEDIUM, HIGH = DriftSeverity.LOW, DriftSeverity.MEDIUM, DriftSeverity.HIGH


@pytest.fixture
def served(champion: Callable[[str], Path]) -> Champion:
    """The good model in production."""
    return Champion(Artifact.load(champion("good") / "production"), is_own=True)


def test_drift_requires_retraining(served: Champion, ask: Ask) -> None:
    """Rows of another distribution since the training are high drift, which requires retraining now."""
    dataset = market_of(25_000, skill=1.0)
    x = dataset.x.copy()
    x[6000:] = x[6000:] * 3.0 + 1.0
    need = assess_need(ask(), replace(dataset, x=x), served, parse_time(served.artifact.metadata.created))
    assert need.is_needed
    assert need.decision.action is Action.RETRAIN_NOW
    assert need.severity == DriftSeverity.HIGH
    assert need.figures()["drift_share"] > 0.75


def test_unchanged_market_requires_nothing(served: Champion, ask: Ask) -> None:
    """More rows of the same market are no reason to retrain."""
    need = assess_need(ask(), until(market_of(25_000, skill=1.0), 12_000), served, parse_time("2026-12-01T00:00:00Z"))
    assert not need.is_needed


def test_persistent_drift_requires_retraining(served: Champion, ask: Ask) -> None:
    """Drift found over more than two weeks requires retraining; checks of an earlier champion do not count."""
    request = ask()
    created = parse_time(served.artifact.metadata.created)
    for day, reason in ((-30, "before its time"), (1, "drift"), (8, "drift"), (15, "drift")):
        entry = HistoryEntry(time=format_time(created + day * DAY), event="checked", reason=reason, severity="medium")
        append_entry(request.artifacts, entry)
    dataset = until(market_of(25_000, skill=1.0), 12_000)
    assert not assess_need(request, dataset, served, created + 14 * DAY).is_needed
    late = assess_need(request, dataset, served, created + 17 * DAY)
    assert late.is_needed
    assert any("16 days" in reason for reason in late.reasons)


def test_damaged_outcomes_and_history_stop_no_retraining(served: Champion, ask: Ask) -> None:
    """Outcomes that cannot be read count as unknown, with the reason; so do lines of the history."""
    request = ask()
    request.outcomes.parent.mkdir(parents=True, exist_ok=True)
    request.outcomes.write_bytes(b"no database, but long enough to be read as the head of one " * 10)
    for time, severity in (("yesterday", "medium"), ("2026-12-01T00:00:00Z", "odd")):
        append_entry(request.artifacts, HistoryEntry(time=time, event="checked", reason="x", severity=severity))
    dataset = until(market_of(25_000, skill=1.0), 12_000)
    need = assess_need(request, dataset, served, parse_time("2026-12-01T00:00:00Z"))
    assert need.performance is None
    assert any("live performance not measured" in reason for reason in need.reasons)


def test_first_own_hours_require_retraining(ask: Ask) -> None:
    """With the shipped model in service, six hours of own recordings are a reason to train, five are not."""
    shipped = load_champion(ask().artifacts, simulated=True)
    assert not shipped.is_own
    is_needed = {}
    for hours in (5, 7):
        dataset = market_of(hours * 3600, skill=1.0)
        is_needed[hours] = assess_need(ask(), dataset, shipped, parse_time("2026-12-01T00:00:00Z")).is_needed
    assert is_needed == {5: False, 7: True}


def test_hours_of_new_data_are_inclusive(served: Champion, tmp_path: Path) -> None:
    """Exactly 6 hours are enough for a first own model, exactly the hours trained on for the next one."""
    shipped = replace(served, is_own=False)
    assert not _new_data_reasons(shipped, 6.0 - 1e-9)
    assert _new_data_reasons(shipped, 6.0)
    data = msgspec.structs.replace(
        served.artifact.metadata.data, start="2026-01-01T00:00:00Z", end="2026-01-01T08:00:00Z"
    )
    own = Champion(Artifact.load(artifact(tmp_path / "eight_hours", data=data)), is_own=True)
    assert not _new_data_reasons(own, 8.0 - 1e-9)
    assert _new_data_reasons(own, 8.0)


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
