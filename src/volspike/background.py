"""Background work: supervised tasks and threads that an error does not end, and the bounded queue of such a thread.

A fault of background work is logged and counted, and the work starts again after a pause. Until it succeeds,
``/health`` reports its name and its last error.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from threading import Condition, Event, Thread
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.telemetry import MetricSpec

T = TypeVar("T")

BACKGROUND_FAULTS: Final = MetricSpec(
    "background_faults_total",
    "counter",
    "faults",
    "Unexpected errors of background work, by task; the work starts again after a pause.",
    ("task",),
)

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
ERROR_CHARACTERS: Final = 300
"""How much of an error's text ``BackgroundTask.error`` keeps."""

_LOWEST_PRIORITY: Final = 19

_log = structlog.get_logger(__name__)


class BackgroundTask:
    """Work next to the main loop that an error does not end; its state can be read in any thread.

    Args:
        name: label of its metric, and its name in ``/health``.
        first_pause_s: pause after a fault; it doubles with each further fault in a row.
        longest_pause_s: upper limit of the pause.
    """

    def __init__(
        self, name: str, *, first_pause_s: float = FIRST_PAUSE_S, longest_pause_s: float = LONGEST_PAUSE_S
    ) -> None:
        self.name = name
        self.faults = 0
        self.error: str | None = None
        """The last error, until the work succeeds again."""
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._pause_s = first_pause_s

    def fail(self, error: BaseException | str) -> float:
        """Log and count a fault; returns the pause in seconds before the next attempt.

        Give a text instead of an exception if its message or its traceback may contain a secret.
        """
        pause_s, self._pause_s = self._pause_s, min(2.0 * self._pause_s, self._longest_pause_s)
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self.error = " ".join(text.split())[:ERROR_CHARACTERS]
        self.faults += 1
        _log.error(
            "background_fault",
            task=self.name,
            error=self.error,
            faults=self.faults,
            pause_s=pause_s,
            exc_info=None if isinstance(error, str) else error,
        )
        return pause_s

    def succeed(self) -> None:
        """Note that the work succeeded, which ends the fault and resets the pause."""
        if self.error is not None:
            _log.info("background_recovered", task=self.name, faults=self.faults)
            self.error, self._pause_s = None, self._first_pause_s

    async def repeat(self, step: Callable[[], Awaitable[object]], every_s: float) -> None:
        """Await ``step`` every ``every_s`` seconds until cancelled, and later than that if the pause is longer."""
        pause_s = 0.0
        while True:
            await asyncio.sleep(max(every_s, pause_s))
            try:
                await step()
            except Exception as error:  # noqa: BLE001  the boundary of the task
                pause_s = self.fail(error)
            else:
                pause_s = 0.0
                self.succeed()


class Periodic(NamedTuple):
    """A background task of an event loop, its step, and the seconds between two steps."""

    task: BackgroundTask
    step: Callable[[], Coroutine[Any, Any, None]]
    every_s: float


class SupervisedThread(BackgroundTask):
    """A daemon thread that calls ``work(self)``, again after each fault, until it returns.

    ``work`` calls ``succeed`` after each unit of work.
    """

    def __init__(self, name: str, work: Callable[[SupervisedThread], None], *, first_pause_s: float) -> None:
        super().__init__(name, first_pause_s=first_pause_s)
        self._work = work
        self._is_closing = Event()
        self._thread = Thread(target=self._run, name=f"volspike-{name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the work has not returned yet."""
        return self._thread.is_alive()

    def close(self, timeout_s: float) -> bool:
        """Wait for the work to return, up to ``timeout_s``; False if it has not.

        The caller first makes the work return, such as by closing its queue. A pause ends at once, and a fault from now
        on ends the thread after one more attempt.
        """
        self._is_closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            is_last = self._is_closing.is_set()
            try:
                self._work(self)
            except BaseException as error:  # noqa: BLE001  the boundary of the thread: nothing may end it silently
                pause_s = self.fail(error)
                if is_last:
                    return
                self._is_closing.wait(pause_s)
            else:
                return


def supervised(
    name: str, work: Callable[[SupervisedThread], None], *, first_pause_s: float = FIRST_PAUSE_S
) -> SupervisedThread:
    """Start ``work(thread)`` in a supervised thread named ``name``, which is also the label of its metric."""
    return SupervisedThread(name, work, first_pause_s=first_pause_s)


TaskList: TypeAlias = Callable[[], Iterable[BackgroundTask]]
"""Returns the background tasks that exist at the moment."""


class BackgroundCollector(Collector):
    """The metric of the background tasks; tasks of the same name are counted together."""

    def __init__(self, tasks: TaskList) -> None:
        self._tasks = tasks

    def collect(self) -> Iterator[Metric]:
        """The faults of each task so far."""
        faults: dict[str, int] = {}
        for task in self._tasks():
            faults[task.name] = faults.get(task.name, 0) + task.faults
        yield BACKGROUND_FAULTS.family(((name,), number) for name, number in faults.items())

    def describe(self) -> Iterator[Metric]:
        """The metric without its values."""
        yield BACKGROUND_FAULTS.family([])


class Backlog(Generic[T]):
    """At most ``limit`` items that wait for a background thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def dropped(self) -> int:
        """The number of items that were never taken."""
        return self._dropped

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._is_closed

    def put(self, item: T) -> bool:
        """Adds an item; False if an item was dropped: the oldest one, or this one if the queue is closed."""
        with self._changed:
            is_accepted = not self._is_closed and len(self._items) < self._limit
            if not is_accepted:
                self._dropped += 1
            if not is_accepted and not self._is_closed:
                self._items.popleft()
            if not self._is_closed:
                self._items.append(item)
            self._changed.notify_all()
            return is_accepted

    def take(self, limit: int, timeout: float | None) -> list[T]:
        """Up to ``limit`` items, oldest first, once there is one; none after ``timeout`` s or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed, timeout)
            return [self._items.popleft() for _ in range(min(limit, len(self._items)))]

    def wait_closed(self, timeout: float) -> bool:
        """Waits up to ``timeout`` s until the queue is closed; False if it is still open."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed, timeout)

    def close(self) -> None:
        """Accepts no more items; those that wait can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def drop_all(self) -> int:
        """Drops all waiting items and returns their number."""
        with self._changed:
            left = len(self._items)
            self._items.clear()
            self._dropped += left
            return left


def start_low_priority(command: Sequence[str], output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a process with the lowest priority and one thread per library; ``output`` is for both of its streams."""
    single_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    )
    priority = 0
    if sys.platform == "win32":
        priority = subprocess.IDLE_PRIORITY_CLASS
    process = subprocess.Popen(  # noqa: S603  the command is ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, **single_thread},
        creationflags=priority,
    )
    if sys.platform != "win32":
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)
        except OSError as error:  # it has already ended
            _log.info("priority_not_set", reason=str(error))
    return process
