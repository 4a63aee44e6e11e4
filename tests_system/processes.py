"""Real processes, started the way a user starts them and ended by their ids."""

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
    "MLFLOW_TRACKING_URI",
    "PYTHONUNBUFFERED",
}
"""Variables that would change what a command does; none is handed on unless a test says so."""


class Outcome(NamedTuple):
    """How a process ended, and what it said."""

    status: int
    out: str
    err: str


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def environment(**variables: str | None) -> dict[str, str]:
    """This process's environment with the given variables; None takes one away."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    kept.update({name: value for name, value in variables.items() if value is not None})
    return {name: value for name, value in kept.items() if variables.get(name, "") is not None}


def finished(command: list[str], folder: Path, timeout: float = 120, **variables: str | None) -> Outcome:
    """A process run to its end in ``folder``."""
    done = subprocess.run(  # noqa: S603  our own commands
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=timeout, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def volspike(folder: Path, *arguments: object, timeout: float = 120, **variables: str | None) -> Outcome:
    """``volspike ARGUMENTS`` run to its end in ``folder``."""
    return finished([*VOLSPIKE, *map(str, arguments)], folder, timeout, **variables)


def well(outcome: Outcome) -> Outcome:
    """The outcome, which is one of success."""
    assert outcome.status == 0, outcome.err
    assert "Traceback" not in outcome.err
    return outcome


class Server:
    """``volspike serve`` (or ``up``) on a free port, up once this is made."""

    def __init__(self, folder: Path, *arguments: object, command: str = "serve", **variables: str | None) -> None:
        words = [*VOLSPIKE, command, *map(str, arguments)]
        self._process = subprocess.Popen(  # noqa: S603  our own command
            words, cwd=folder, env=environment(**variables), stderr=subprocess.PIPE, text=True
        )
        self.events: list[dict[str, Any]] = []
        self.url = "http://{host}:{port}".format(**self._until("server_started"))

    def _until(self, event: str) -> dict[str, Any]:
        """The next log event of this name; those before it are kept in ``events``."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            assert line.startswith("{"), line + self._process.stderr.read()
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event:
                return self.events[-1]
        raise AssertionError(f"the server ended without {event}: {self.events}")

    def get(self, path: str) -> Answer:
        """What ``GET path`` answers, whatever its status."""
        return answered(urllib.request.Request(self.url + path))  # noqa: S310  our own server

    def post(self, path: str, body: str) -> Answer:
        """What ``POST path`` with a JSON body answers, whatever its status."""
        headers = {"Content-Type": "application/json"}
        return answered(urllib.request.Request(self.url + path, body.encode(), headers))  # noqa: S310  our own server

    def metrics(self) -> dict[str, float]:
        """Every line of ``/metrics``: its name with labels → its value."""
        lines = self.get("/metrics").body.decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def keep_reading(self) -> threading.Thread:
        """Reads the log beside whoever calls, to its end: a full pipe would hold the server up."""
        assert self._process.stderr is not None
        lines = self._process.stderr
        thread = threading.Thread(target=lambda: self.events.extend(json.loads(line) for line in lines))
        thread.start()
        return thread

    def end(self) -> int:
        """Tells the server to stop; its exit status. Its log is read by somebody else."""
        os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(timeout=30)

    def stop(self) -> tuple[int, float]:
        """Tells the server to stop; its exit status, and the seconds that it took."""
        began = time.monotonic()
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
        self._until("server_stopped")
        return self._process.wait(timeout=30), time.monotonic() - began

    def kill(self) -> None:
        """Ends the process at once if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Ends the process if it still runs."""
        self.kill()
        if self._process.stderr is not None:
            self._process.stderr.close()


def answered(request: urllib.request.Request) -> Answer:
    """The answer to a request; a refusal is one too."""
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310  our own server
            return Answer(reply.status, reply.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.read())
