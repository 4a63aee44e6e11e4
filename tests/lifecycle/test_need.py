"""Whether a new model is called for, from rows, outcomes and history together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lifecycle.conftest import SECOND, Ask, market, until
from volspike.lifecycle.challenger import Champion, champion_for
from volspike.lifecycle.history import HistoryEntry, append_entry
from volspike.lifecycle.need import need_for
from volspike.market import format_time, parse_time
from volspike.models import Artifact
from volspike.monitoring.decision import Action
from volspike.monitoring.drift import Severity

DAY = 86_400 * SECOND


@pytest.fixture
def served(champion: Callable[[str], Path]) -> Champion:
    """The good model, put into production."""
    return Champion(Artifact.load(champion("good") / "production"), is_own=True)


def test_market_that_changed_calls_for_training(served: Champion, ask: Ask) -> None:
    """Rows of another distribution since the training are drift, and the matrix says at once."""
    dataset = market(25_000, skill=1.0)
    x = dataset.x.copy()
    x[6000:] = x[6000:] * 3.0 + 1.0
    need = need_for(ask(), replace(dataset, x=x), served, parse_time(served.artifact.metadata.created))
    assert need.is_needed
    assert need.decision.action is Action.RETRAIN_NOW
    assert need.severity == Severity.HIGH
    assert need.figures()["drift_share"] > 0.75


def test_market_as_it_was_calls_for_nothing(served: Champion, ask: Ask) -> None:
    """The same market a little longer is no reason."""
    need = need_for(ask(), until(market(25_000, skill=1.0), 12_000), served, parse_time("2026-12-01T00:00:00Z"))
    assert not need.is_needed


def test_drift_that_lasted_for_weeks_calls_for_training(served: Champion, ask: Ask) -> None:
    """Checks that found drift for over two weeks add up; those of an earlier champion do not count."""
    request = ask()
    begun = parse_time(served.artifact.metadata.created)
    for day, reason in ((-30, "before its time"), (1, "drift"), (8, "drift"), (15, "drift")):
        entry = HistoryEntry(time=format_time(begun + day * DAY), event="checked", reason=reason, severity="medium")
        append_entry(request.artifacts, entry)
    dataset = until(market(25_000, skill=1.0), 12_000)
    assert not need_for(request, dataset, served, begun + 14 * DAY).is_needed
    late = need_for(request, dataset, served, begun + 17 * DAY)
    assert late.is_needed
    assert any("16 days" in reason for reason in late.reasons)


def test_first_hours_of_its_own_market_are_learned_from(ask: Ask) -> None:
    """Where the model that ships is served, six hours of the market are a reason; five are none."""
    shipped = champion_for(ask().artifacts, simulated=True)
    assert not shipped.is_own
    names = {}
    for hours in (5, 7):
        dataset = market(hours * 3600, skill=1.0)
        names[hours] = need_for(ask(), dataset, shipped, parse_time("2026-12-01T00:00:00Z")).is_needed
    assert names == {5: False, 7: True}
