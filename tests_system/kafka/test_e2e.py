"""``make e2e``: the full scenario passes, and a missing cluster makes it fail."""

from __future__ import annotations

import sys

from tests.streams.brokers.ports import free_ports

from tests_system.conftest import ROOT
from tests_system.processes import run_process

E2E = [sys.executable, "-m", "tests_system.e2e"]


def test_full_scenario_passes() -> None:
    """The full scenario passes every check, from the topics to live predictions and the API."""
    done = run_process([*E2E, "full"], ROOT, timeout=240)
    assert done.status == 0, done.out + done.err
    assert "full passed" in done.out
    assert "FAILED" not in done.out


def test_unreachable_cluster_fails() -> None:
    """If the cluster is unreachable, the error of the first command is printed and the status is 1."""
    (port,) = free_ports(1)
    done = run_process([*E2E, "simple", "--bootstrap-servers", f"127.0.0.1:{port}"], ROOT)
    assert done.status == 1
    assert "FAILED  volspike topics ended with 4: " in done.out
