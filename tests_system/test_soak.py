"""A soak test of 15 simulated minutes; `make soak` runs a day."""

from __future__ import annotations

from pathlib import Path

from tests_system.soak import ERRORS, EXPECTED, soak


def test_faults_are_survived_and_reported(tmp_path: Path) -> None:
    """The server does not crash, counts each loss, does not grow in memory, and Prometheus fires each alert."""
    result = soak(tmp_path, market_s=900.0, down_s=5.0)
    assert result.fired >= EXPECTED
    assert result.status == 0
    assert result.errors <= ERRORS
    for name in ("feed_malformed_total", "feed_gaps_total", "feed_reconnects_total", "tape_unrecorded_ticks_total"):
        assert result.count(name) > 0, name
    third = len(result.memory) // 3
    early, late = max(result.memory[third : 2 * third]), max(result.memory[2 * third :])
    assert late < 1.1 * early
