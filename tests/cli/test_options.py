"""Helpers of several commands: stopping at a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from volspike.cli.options import on_stop_signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores the handlers of the signals that a test sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("platform", ["posix", "windows"])
def test_a_signal_stops_in_the_event_loop(number: int, platform: str) -> None:
    """The action runs in the loop; also where the loop has no signal handlers, as that of Windows."""

    def refuse(*_: Any) -> None:
        raise NotImplementedError

    async def wait_for_signal() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        if platform == "windows":
            loop.add_signal_handler = refuse  # type: ignore[method-assign, assignment]
        on_stop_signals(stopped.set)
        signal.raise_signal(number)
        await asyncio.wait_for(stopped.wait(), 10)

    asyncio.run(wait_for_signal())
