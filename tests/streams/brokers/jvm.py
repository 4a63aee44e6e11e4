"""A process that is killed when the process that started it ends, in whatever way."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

GUARD: Final = """log=$1; shift; "$@" >>"$log" 2>&1 & echo $!; read -r how; kill -"${how:-KILL}" $!; wait $!"""
"""A shell that starts the command, prints its id, and waits for a line or for the end of its own input."""


class Jvm:
    """A running command; what it says goes to the end of ``log``."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._guard = subprocess.Popen(  # noqa: S603  our own command
            ["/bin/sh", "-c", GUARD, "guard", str(log), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a shell says that a process was killed
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which end their brokers themselves
        )
        assert self._guard.stdout is not None
        self.pid = int(self._guard.stdout.readline())
        self._handle = os.pidfd_open(self.pid)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone by itself."""
        return bool(select.select([self._handle], [], [], 0)[0])

    def end(self, timeout_s: float) -> None:
        """Stops it, and kills it if that takes longer than ``timeout_s``."""
        self._signal("TERM")
        if not select.select([self._handle], [], [], timeout_s)[0]:
            os.kill(self.pid, signal.SIGKILL)
        self._wait()

    def kill(self) -> None:
        """``kill -9``; the process is gone once this returns."""
        self._signal("KILL")
        self._wait()

    def _signal(self, name: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{name}\n")
        self._guard.stdin.close()

    def _wait(self) -> None:
        self._guard.wait()
        os.close(self._handle)
        assert self._guard.stdout is not None
        self._guard.stdout.close()
