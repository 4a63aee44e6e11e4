"""Bounded disk use of a folder of tapes: deletion of old tapes, and compaction next to a running recorder.

``delete_expired`` deletes tapes that are too old. ``TapeUpkeep`` starts ``volspike compact`` every hour, in a process
of its own with the lowest priority: parsing an hour in a thread would hold the interpreter and delay ticks. A process
that is killed loses and duplicates nothing (see ``compact``). It also measures the free disk space.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Final, Protocol

import msgspec

from volspike.background import BackgroundTask, SupervisedThread, start_low_priority, supervised
from volspike.errors import UsageError
from volspike.market import SECOND_NS
from volspike.tape.compact import hour_start_ns, is_settled, lock_path
from volspike.tape.names import HOUR_NS, read_hour_name
from volspike.tape.report import rejected_path

KEEP_DAYS: Final = 30.0
"""Days of tapes and of live predictions that are kept by default."""

FIRST_AFTER_S: Final = 120.0
"""The first compaction is this long after the start, so that a restart disturbs no warm-up."""

MINUTE_OF_HOUR_S: Final = 420.0
"""Compactions start this long after each full hour, when the files of the last hour are finished."""

MEASURE_EVERY_S: Final = 10.0

_DAY_NS: Final = 86_400 * SECOND_NS
_STOP_WITHIN_S: Final = 5.0
_POLL_S: Final = 0.5


class UpkeepResult(msgspec.Struct, kw_only=True):
    """Changes by one run of ``volspike compact``, which prints them with ``--json``; ``notes`` are files that stay."""

    hours: int = 0
    ticks: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    deleted: list[str] = []
    deleted_bytes: int = 0
    notes: list[str] = []


def delete_expired(folder: Path, keep_days: float, *, clock: Callable[[], int] = time.time_ns) -> UpkeepResult:
    """Deletes the recorded and compacted tapes whose hour ended more than ``keep_days`` ago; 0 keeps all.

    The days count back from the newest tape, or from ``clock`` (ns UTC) if that is earlier: a folder that is no longer
    recorded keeps its tapes, and so does one whose clock is wrong until an hour with the wrong time is recorded. A file
    that is being written, and every file with another form of name, stays. The gap ledger stays.

    Raises:
        UsageError: the folder cannot be read, or a compaction is running in it.
        OSError: a file cannot be deleted.
    """
    result = UpkeepResult()
    if keep_days <= 0:
        return result
    now = clock()
    named = [(name, path) for path in sorted(folder.iterdir()) if (name := read_hour_name(path)) is not None]
    ends = [(hour_start_ns(name.hour) or now) + HOUR_NS for name, _ in named]
    limit = min(now, max(ends, default=now)) - round(keep_days * _DAY_NS)
    # NDJSON first: an interruption must not leave it without the Parquet tape that replaces it
    old = sorted((path.suffix == ".parquet", path) for (_, path), end in zip(named, ends, strict=True) if end < limit)
    with ExitStack() as locks:
        if not lock_path(folder, locks):
            raise UsageError(f"{folder}: a compaction is running in it; wait until it ends")
        for is_parquet, path in old:
            with ExitStack() as file_lock:
                if not is_parquet and not (is_settled(path, now) and lock_path(path, file_lock)):
                    continue
                result.deleted.append(path.name)
                result.deleted_bytes += path.stat().st_size
                path.unlink()
                rejected_path(path).unlink(missing_ok=True)
    return result


class UpkeepProcess(Protocol):
    """A running ``volspike compact``; ``subprocess.Popen``, or a fake in tests."""

    returncode: int | None

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for the end and return what it printed."""
        ...

    def terminate(self) -> None:
        """Request termination."""
        ...

    def kill(self) -> None:
        """Force termination."""
        ...


class TapeUpkeep:
    """Compacts and deletes the finished tapes of ``folder`` while it is recorded.

    Args:
        folder: the folder of the recorder.
        keep_days: older tapes are deleted; 0 keeps all.
        report: receives the result of each run, in the thread of the upkeep.
        start: creates the process.
        clock: seconds UTC.
    """

    def __init__(
        self,
        folder: Path,
        keep_days: float = KEEP_DAYS,
        *,
        report: Callable[[UpkeepResult], object] = lambda _: None,
        start: Callable[[Sequence[str]], UpkeepProcess] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._report, self._clock = folder.expanduser(), report, clock
        self._start = start or _start
        arguments = ("--tape", str(self._folder), "--keep-days", f"{keep_days:g}", "--remove-later", "--json")
        self._command = (sys.executable, "-m", "volspike", "compact", *arguments)
        self.free_bytes = free_bytes(self._folder)
        """Free bytes of the disk of the folder; None if they are not known."""
        self.hours = self.deleted = 0
        """Compacted hours and deleted tapes since the start."""
        self._due = clock() + FIRST_AFTER_S
        self._compaction = BackgroundTask("compaction")
        self._closing = Event()
        self._thread = supervised("upkeep", self._work)

    @property
    def tasks(self) -> tuple[BackgroundTask, ...]:
        """The background tasks: the thread, and the runs that it starts."""
        return (self._thread, self._compaction)

    def close(self, timeout: float = 2.0 * _STOP_WITHIN_S) -> bool:
        """Ends a run that is active, which changes nothing that the next one does not complete; False on timeout."""
        self._closing.set()
        return self._thread.close(timeout)

    def _work(self, thread: SupervisedThread) -> None:
        while True:
            self.free_bytes = free_bytes(self._folder)
            now = self._clock()
            # after the clock was set back, the next run is at most an hour away
            if now >= self._due or self._due - now > 3_600.0 + MINUTE_OF_HOUR_S:
                self._due = next_run(now)
                if self._folder.is_dir():
                    self._run()
            thread.succeed()
            if self._closing.wait(MEASURE_EVERY_S):
                return

    def _run(self) -> None:
        process = self._start(self._command)
        while True:
            try:
                printed, errors = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if self._closing.is_set():
                    _stop(process)
                    return
        try:
            result = msgspec.json.decode(printed, type=UpkeepResult)
        except msgspec.DecodeError:
            last = errors.decode(errors="replace").strip().rpartition("\n")[2]
            self._compaction.fail(f"volspike compact ended with status {process.returncode}: {last}")
            return
        self._compaction.succeed()
        self.hours += result.hours
        self.deleted += len(result.deleted)
        self._report(result)


def next_run(now: float) -> float:
    """The time of the next compaction after ``now`` (seconds UTC).

    >>> next_run(7_000.0)
    7620.0
    """
    return ((now - MINUTE_OF_HOUR_S) // 3_600.0 + 1.0) * 3_600.0 + MINUTE_OF_HOUR_S


def free_bytes(folder: Path) -> int | None:
    """Free bytes of the disk of a folder, or of the folder in which it would be created; None if unknown."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with suppress(OSError):
        return shutil.disk_usage(place).free
    return None


def _start(command: Sequence[str]) -> UpkeepProcess:
    return start_low_priority(command, subprocess.PIPE)


def _stop(process: UpkeepProcess) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
