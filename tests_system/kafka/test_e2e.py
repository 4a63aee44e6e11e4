"""``make e2e``, the way that has everything in it; and that it fails where it should."""

from __future__ import annotations

import sys

from tests.streams.brokers.ports import free_ports

from tests_system.conftest import ROOT
from tests_system.processes import finished

E2E = [sys.executable, "-m", "tests_system.e2e"]


def test_the_whole_way_passes() -> None:
    """From topics to predictions of a live market and the API, each step checked."""
    done = finished([*E2E, "full"], ROOT, timeout=240)
    assert done.status == 0, done.out + done.err
    assert "full passed" in done.out
    assert "FAILED" not in done.out


def test_a_cluster_that_does_not_answer_fails_it() -> None:
    """The first command's error is told, and the status is not 0."""
    (port,) = free_ports(1)
    done = finished([*E2E, "simple", "--bootstrap-servers", f"127.0.0.1:{port}"], ROOT)
    assert done.status == 1
    assert "FAILED  volspike topics ended with 4: " in done.out
