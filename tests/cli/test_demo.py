"""``volspike demo``, as far as it does not serve."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.cli.command_line import USAGE, Run, assert_refused, untouched


def test_a_taken_port_is_told_before_the_work(tmp_path: Path, volspike: Run) -> None:
    """Nothing is simulated, replayed or trained for a server that could not listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken, untouched(tmp_path):
        port = taken.getsockname()[1]
        outcome = volspike("demo", "--port", port)
    assert_refused(outcome, USAGE, f"port {port} on 127.0.0.1 is in use")
    assert list(tmp_path.iterdir()) == []
