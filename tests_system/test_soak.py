"""A quarter of an hour of a bad market at sixty times its speed; `make soak` has the day."""

from __future__ import annotations

from pathlib import Path

from tests_system.soak import ERRORS, EXPECTED, soak


def test_a_bad_market_is_survived_and_seen(tmp_path: Path) -> None:
    """No crash, what was lost is counted, memory stays, and Prometheus fires each alert."""
    told = soak(tmp_path, market_s=900.0, away_s=5.0)
    assert told.fired >= EXPECTED
    assert told.status == 0
    assert told.errors <= ERRORS
    for name in ("feed_malformed_total", "feed_gaps_total", "feed_reconnects_total", "tape_unrecorded_ticks_total"):
        assert told.count(name) > 0, name
    third = len(told.memory) // 3
    early, late = max(told.memory[third : 2 * third]), max(told.memory[2 * third :])
    assert late < 1.1 * early
