"""Modes of sources."""

from __future__ import annotations

import pytest

from volspike.market import Mode


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_is_its_two_properties(mode: Mode) -> None:
    """Every mode is that of a source with its two properties, and its label names both."""
    assert Mode.of(simulated=mode.is_simulated, replayed=mode.is_replay) is mode
    assert ("SIMULATED" in mode.label, "REPLAY" in mode.label) == (mode.is_simulated, mode.is_replay)
