"""Worker processes as a user starts them; tests kill, freeze, stop and restart them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests_system.processes import VOLSPIKE, environment

QUICK = ("session.timeout.ms=2000", "heartbeat.interval.ms=300")
"""Kafka options with which the group notices a dead worker after two seconds instead of ten."""

STOP_TIMEOUT_S = 240.0


class WorkerProcess:
    """A ``volspike COMMAND`` that can be restarted; the output of all its runs goes to one file."""

    def __init__(self, folder: Path, bootstrap: str, command: str, name: str, *arguments: object) -> None:
        self.command, self.name = command, name
        self.log = folder / f"{command}-{name}.log"
        self._folder = folder
        self._command_line = [*VOLSPIKE, command, "--worker", name, "--bootstrap-servers", bootstrap]
        self._command_line += [word for option in QUICK for word in ("--kafka-option", option)]
        self._command_line += map(str, arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command
                self._command_line, cwd=self._folder, env=environment(), stdout=log, stderr=log
            )

    @property
    def has_ended(self) -> bool:
        """Whether the process is not running."""
        return self._process is None or self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Sends SIGTERM, waits for the end, and returns the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_TIMEOUT_S)

    def wait(self) -> int:
        """Waits until the process ends by itself, and returns the exit status."""
        assert self._process is not None
        return self._process.wait(STOP_TIMEOUT_S)

    @property
    def output(self) -> str:
        """The output of all runs."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def alerts(self) -> list[tuple[str, bool]]:
        """The alerts in the output, as (id, whether it opens)."""
        found = []
        for line in self.output.splitlines():
            if line.startswith('{"id"'):
                try:
                    event = json.loads(line)
                except ValueError:  # truncated by a kill
                    continue
                if event["event"] in {"alert_opened", "alert_closed"}:
                    found.append((event["id"], event["event"] == "alert_opened"))
        return found
