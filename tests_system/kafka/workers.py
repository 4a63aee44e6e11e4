"""Workers as a user starts them, to be killed, stopped for a while, told to end, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests_system.processes import VOLSPIKE, environment

QUICK = ("session.timeout.ms=2000", "heartbeat.interval.ms=300")
"""So that a dead worker is missed after two seconds instead of ten."""

END_WITHIN_S = 240.0


class WorkerProcess:
    """One ``volspike COMMAND``; everything that its runs write to stderr goes to one file."""

    def __init__(self, folder: Path, bootstrap: str, command: str, name: str, *arguments: object) -> None:
        self.command, self.name = command, name
        self.log = folder / f"{command}-{name}.log"
        self._folder = folder
        self._words = [*VOLSPIKE, command, "--worker", name, "--bootstrap-servers", bootstrap]
        self._words += [word for option in QUICK for word in ("--kafka-option", option)]
        self._words += map(str, arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command
                self._words, cwd=self._folder, env=environment(), stdout=log, stderr=log
            )

    @property
    def has_ended(self) -> bool:
        """Whether it is not running."""
        return self._process is None or self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def end(self) -> int:
        """Tells it to end, and waits; its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(END_WITHIN_S)

    def wait(self) -> int:
        """Waits until it ends by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(END_WITHIN_S)

    @property
    def said(self) -> str:
        """What all its runs have written."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def alerts(self) -> list[tuple[str, bool]]:
        """The alerts that it told: id, and whether it opened."""
        found = []
        for line in self.said.splitlines():
            if line.startswith('{"id"'):
                try:
                    event = json.loads(line)
                except ValueError:  # cut off by a kill
                    continue
                if event["event"] in {"alert_opened", "alert_closed"}:
                    found.append((event["id"], event["event"] == "alert_opened"))
        return found
