"""The need to retrain follows from rows, outcomes and history together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.lifecycle.artifacts import artifact
from tests.lifecycle.conftest import SECOND, Ask, market, until
from volspike.lifecycle.challenger import Champion, load_champion
from volspike.lifecycle.need import _new_data_reasons, assess_need
from volspike.lifecycle.promotion import HistoryEntry, append_entry
from volspike.market import format_time, parse_time
from volspike.models import Artifact
from volspike.monitoring.decision import Action
from volspike.monitoring.drift import DriftSeverity

DAY = 86_400 * SECOND


@pytest.fixture
def served(champion: Callable[[str], Path]) -> Champion:
    """The good model in production."""
    return Champion(Artifact.load(champion("good") / "production"), is_own=True)


def test_drift_requires_retraining(served: Champion, ask: Ask) -> None:
    """Rows of another distribution since the training are high drift, which requires retraining now."""
    dataset = market(25_000, skill=1.0)
    x = dataset.x.copy()
    x[6000:] = x[6000:] * 3.0 + 1.0
    need = assess_need(ask(), replace(dataset, x=x), served, parse_time(served.artifact.metadata.created))
    assert need.is_needed
    assert need.decision.action is Action.RETRAIN_NOW
    assert need.severity == DriftSeverity.HIGH
    assert need.figures()["drift_share"] > 0.75


def test_unchanged_market_requires_nothing(served: Champion, ask: Ask) -> None:
    """More rows of the same market are no reason to retrain."""
    need = assess_need(ask(), until(market(25_000, skill=1.0), 12_000), served, parse_time("2026-12-01T00:00:00Z"))
    assert not need.is_needed


def test_persistent_drift_requires_retraining(served: Champion, ask: Ask) -> None:
    """Drift found over more than two weeks requires retraining; checks of an earlier champion do not count."""
    request = ask()
    created = parse_time(served.artifact.metadata.created)
    for day, reason in ((-30, "before its time"), (1, "drift"), (8, "drift"), (15, "drift")):
        entry = HistoryEntry(time=format_time(created + day * DAY), event="checked", reason=reason, severity="medium")
        append_entry(request.artifacts, entry)
    dataset = until(market(25_000, skill=1.0), 12_000)
    assert not assess_need(request, dataset, served, created + 14 * DAY).is_needed
    late = assess_need(request, dataset, served, created + 17 * DAY)
    assert late.is_needed
    assert any("16 days" in reason for reason in late.reasons)


def test_first_own_hours_require_retraining(ask: Ask) -> None:
    """With the shipped model in service, six hours of own recordings are a reason to train, five are not."""
    shipped = load_champion(ask().artifacts, simulated=True)
    assert not shipped.is_own
    is_needed = {}
    for hours in (5, 7):
        dataset = market(hours * 3600, skill=1.0)
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
