"""Background work: an error is logged, counted and reported, and the work goes on."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

import volspike
from volspike.background import BackgroundCollector, BackgroundTask, SupervisedThread, supervised
from volspike.cli.ingest import _listen, _periodic_work
from volspike.feeds.events import FeedEvent
from volspike.live.metrics import FeedCounts
from volspike.telemetry import LABELS

DEADLINE_S = 10.0
SOURCES = Path(volspike.__file__).parent

UNSUPERVISED = {
    "cli/demo.py": "one request; its end is printed",
    "cli/ingest.py": "the main loop, which raises, and the steps of supervised tasks",
    "cli/load_test.py": "awaited by the command",
    "cli/screen.py": "a progress line, whose error changes no result",
    "cli/simulate.py": "awaited by the command",
    "datasets/bulk.py": "ends a worker process with its parent",
    "feeds/receiver.py": "the tasks of one connection, whose errors end it or are those of the session",
    "feeds/session.py": "its error is raised to the reader of the events",
    "feeds/simulation/client.py": "the tasks of one connection",
    "feeds/simulation/exchange.py": "its error ends all connections and is raised",
    "live/stream.py": "the tasks of one response, whose error ends it",
    "live/up.py": "the main loop, which raises",
    "monitoring/receiver_check.py": "its error is printed as the result of the receiver",
    "streams/transactions.py": "its error is raised in the waiting thread",
}
"""Modules that start tasks or threads themselves, and why an error there is not silent."""


def steps(*errors: Exception | None) -> Callable[[], Awaitable[None]]:
    """A step that raises each of the errors in turn, and then ends the loop that repeats it."""
    left = list(errors)

    async def step() -> None:
        if not left:
            raise asyncio.CancelledError
        error = left.pop(0)
        if error is not None:
            raise error

    return step


def test_a_repeated_step_goes_on_after_an_error() -> None:
    """Faults are counted and the last one is reported, until the step succeeds."""
    task = BackgroundTask("x", first_pause_s=0.0)
    seen: list[tuple[int, str | None]] = []
    step = steps(None, ValueError("first"), KeyError("second"), None)

    async def observed() -> None:
        seen.append((task.faults, task.error))
        await step()

    with pytest.raises(asyncio.CancelledError), capture_logs() as logs:
        asyncio.run(task.repeat(observed, 0.0))
    assert seen == [(0, None), (0, None), (1, "ValueError: first"), (2, "KeyError: 'second'"), (2, None)]
    assert [entry["event"] for entry in logs] == ["background_fault", "background_fault", "background_recovered"]
    assert isinstance(logs[0]["exc_info"], ValueError)


def test_pauses_double_up_to_a_limit_and_start_again_after_a_success() -> None:
    """A task that fails again and again neither spins nor stops."""
    task = BackgroundTask("x", first_pause_s=1.0, longest_pause_s=5.0)
    assert [task.fail("down") for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    task.succeed()
    assert task.fail("down") == 1.0


def test_an_error_is_one_bounded_line() -> None:
    """``/health`` shows no traceback, and no megabyte."""
    task = BackgroundTask("x")
    task.fail(ValueError("a\nb " + 10_000 * "c"))
    assert task.error is not None
    assert task.error.startswith("ValueError: a b c")
    assert len(task.error) == 300


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), SystemExit(1)])
def test_a_thread_is_restarted_after_any_error(error: BaseException) -> None:
    """The work is called again after the pause, also after an error that would end a thread silently."""
    calls, has_ended = [0], Event()

    def work(thread: SupervisedThread) -> None:
        calls[0] += 1
        if calls[0] < 3:
            raise error
        thread.succeed()
        has_ended.set()

    thread = supervised("x", work, first_pause_s=0.0)
    assert has_ended.wait(DEADLINE_S)
    assert thread.close(DEADLINE_S)
    assert (calls[0], thread.faults, thread.error) == (3, 2, None)


def test_closing_ends_a_pause_and_allows_one_more_attempt() -> None:
    """A thread that fails on what is left neither delays the end nor repeats indefinitely."""
    calls, has_failed = [0], Event()

    def work(_: SupervisedThread) -> None:
        calls[0] += 1
        has_failed.set()
        raise ValueError("poison")

    thread = supervised("x", work, first_pause_s=3600.0)
    assert has_failed.wait(DEADLINE_S)
    assert thread.close(DEADLINE_S)
    assert (calls[0], thread.is_alive) == (2, False)


def test_tasks_of_the_same_name_are_counted_together() -> None:
    """The metric has one value per name, as Prometheus requires, and is present before the first fault."""
    tasks = [BackgroundTask("alerts"), BackgroundTask("alerts"), BackgroundTask("rows")]
    for task in tasks[:2]:
        task.fail("down")
    registry = CollectorRegistry()
    registry.register(BackgroundCollector(lambda: tasks))
    values = {name: registry.get_sample_value("background_faults_total", {"task": name}) for name in ("alerts", "rows")}
    assert values == {"alerts": 2.0, "rows": 0.0}


@pytest.mark.parametrize("name", ["tape", "kafka"])
def test_an_error_of_a_check_does_not_end_a_recording(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``volspike ingest`` goes on checking its tape and serving its Kafka client after one error of either."""

    class Part:
        def __init__(self, errors: int) -> None:
            self.errors, self.calls = errors, 0

        def tick(self) -> str:
            self.calls += 1
            if self.calls <= self.errors:
                raise RuntimeError("unexpected")
            return ""

        fault = property(tick)  # of a recorder; a relay has ``tick``

    parts: dict[str, Any] = {"tape": Part(0), "kafka": Part(0)}
    parts[name] = Part(1)
    work = _periodic_work(parts["tape"], parts["kafka"])
    periodic = {BackgroundTask(task.name, first_pause_s=0.0): step for task, step in work.items()}
    monkeypatch.setattr("volspike.cli.ingest.CHECK_EVERY_S", 0.0)

    async def events() -> AsyncIterator[FeedEvent]:
        async with asyncio.timeout(DEADLINE_S):
            while min(part.calls for part in parts.values()) < 3:
                await asyncio.sleep(0)
        none: tuple[FeedEvent, ...] = ()
        for event in none:
            yield event

    source: Any = SimpleNamespace(events=events())
    asyncio.run(_listen(source, parts["tape"], parts["kafka"], FeedCounts(), periodic))
    assert {task.name: task.faults for task in periodic} == {"tape": 0, "kafka": 0} | {name: 1}


def test_all_background_work_is_supervised() -> None:
    """A module that starts a task or thread itself is listed with the reason why its error is not silent."""
    starts = {"create_task", "ensure_future", "Thread", "Timer"}
    found = set()
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if name in starts and owner != "group":  # the error of a task in a TaskGroup is raised
                    found.add(file.relative_to(SOURCES).as_posix())
    assert found - {"background.py"} == UNSUPERVISED.keys()


def test_the_names_of_tasks_are_documented() -> None:
    """The page of metrics lists the names of all tasks, which are the values of a label."""
    sources = "".join(file.read_text() for file in SOURCES.rglob("*.py"))
    names = set(re.findall(r"""(?:BackgroundTask|supervised)\("([^"]+)\"""", sources)) | {"kafka"}
    assert ", ".join(sorted(names)) == LABELS["task"]
