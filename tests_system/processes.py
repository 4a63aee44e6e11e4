"""Real processes: commands that run to their end, and servers that are stopped by their process id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

VOLSPIKE = [sys.executable, "-m", "volspike"]

SETTINGS = {
    "VOLSPIKE_DATA",
    "MODEL_PATH",
    "MODEL_VERSION",
    "MODEL_VARIANT",
    "API_KEY",
    "API_KEY_FILE",
    "RATE_LIMIT",
    "API_HOST",
    "API_PORT",
    "LOG_LEVEL",
    "ALERT_URLS",
    "ALERT_THRESHOLDS",
    "QUIET_HOURS",
    "MLFLOW_TRACKING_URI",
    "PYTHONUNBUFFERED",
}
"""Environment variables that change what a command does; a process gets them only if a test sets them."""


class Outcome(NamedTuple):
    """Exit status and output of a process that has ended."""

    status: int
    out: str
    err: str


class Response(NamedTuple):
    """Status and body of an HTTP response."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def environment(**variables: str | None) -> dict[str, str]:
    """The environment of this process with the given variables; a variable that is None is removed."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    kept.update({name: value for name, value in variables.items() if value is not None})
    return {name: value for name, value in kept.items() if variables.get(name, "") is not None}


def run_process(command: list[str], folder: Path, timeout: float = 120, **variables: str | None) -> Outcome:
    """Runs a command in ``folder`` until it ends."""
    done = subprocess.run(  # noqa: S603  our own commands
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=timeout, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_volspike(folder: Path, *arguments: object, timeout: float = 120, **variables: str | None) -> Outcome:
    """Runs ``volspike ARGUMENTS`` in ``folder`` until it ends."""
    return run_process([*VOLSPIKE, *map(str, arguments)], folder, timeout, **variables)


def succeeded(outcome: Outcome) -> Outcome:
    """The same outcome, after asserting that the process ended with status 0 and without a traceback."""
    assert outcome.status == 0, outcome.err
    assert "Traceback" not in outcome.err
    return outcome


class Server:
    """``volspike serve`` (or ``up``) on a free port; it accepts requests once the constructor returns.

    ``program`` is an installed ``volspike``; this checkout by default.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        command: str = "serve",
        program: str | None = None,
        **variables: str | None,
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603  our own command
            [*(VOLSPIKE if program is None else [program]), command, *map(str, arguments)],
            cwd=folder,
            env=environment(**variables),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self.url = "http://{host}:{port}".format(**self._read_until("server_started"))

    def _read_until(self, event: str) -> dict[str, Any]:
        """The next log event with this name; it and the events before it are appended to ``events``."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            assert line.startswith("{"), line + self._process.stderr.read()
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event:
                return self.events[-1]
        raise AssertionError(f"the server ended without {event}: {self.events}")

    def get(self, path: str) -> Response:
        """The response to ``GET path``, whatever its status."""
        return send(urllib.request.Request(self.url + path))  # noqa: S310  our own server

    def post(self, path: str, body: str) -> Response:
        """The response to ``POST path`` with a JSON body, whatever its status."""
        headers = {"Content-Type": "application/json"}
        return send(urllib.request.Request(self.url + path, body.encode(), headers))  # noqa: S310  our own server

    def metrics(self) -> dict[str, float]:
        """The samples of ``/metrics``: name with labels → value."""
        lines = self.get("/metrics").body.decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def read_in_background(self) -> threading.Thread:
        """Starts a thread that reads the log to its end; otherwise a full pipe would block the server."""
        assert self._process.stderr is not None
        lines = self._process.stderr
        thread = threading.Thread(target=lambda: self.events.extend(json.loads(line) for line in lines))
        thread.start()
        return thread

    def terminate(self) -> int:
        """Sends SIGTERM and returns the exit status; another thread reads the log."""
        os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(timeout=30)

    def stop(self) -> tuple[int, float]:
        """Sends SIGTERM, reads the log to its end, and returns the exit status and the seconds until the end."""
        began = time.monotonic()
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
        self._read_until("server_stopped")
        return self._process.wait(timeout=30), time.monotonic() - began

    def kill(self) -> None:
        """Kills the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kills the process if it still runs, and closes its log."""
        self.kill()
        if self._process.stderr is not None:
            self._process.stderr.close()


def send(request: urllib.request.Request) -> Response:
    """The response to a request, also if its status is an error."""
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310  our own server
            return Response(reply.status, reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, error.read())
