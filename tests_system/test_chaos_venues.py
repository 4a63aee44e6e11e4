"""Sessions of four venues under random faults, compared with the journals of their exchanges."""

from __future__ import annotations

import asyncio

from tests_system.chaos.run import Plan
from tests_system.chaos.truth import CONSECUTIVE, VENUES
from tests_system.chaos.venues import run_venues

PLAN = Plan(seed=12, seconds=25.0, faults=25, kills=0)


def test_every_trade_arrived_or_is_in_a_gap() -> None:
    """After faults of every kind, each trade of each venue was received or lies in a gap of its product."""
    findings = asyncio.run(run_venues(PLAN))
    assert {venue: each.summary() for venue, each in findings.items() if each.violations} == {}
    assert set(findings) == set(VENUES)
    for venue, each in findings.items():
        for label in ("expected ticks on the tape", "faults", "gaps"):
            assert each.counts[label] > 0, (venue, label)
        if venue in CONSECUTIVE:
            assert each.counts["expected ticks lost"] > 0, venue
