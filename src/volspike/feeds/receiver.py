"""One subscribed connection of a session: subscribe, receive, ping, and notice that it is idle.

``FrameReceiver.run`` puts frames, undecoded, into the inbox until the connection ends. Two may run at the same
time, when a session replaces one connection by the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, NoReturn, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from volspike.config import FeedSettings
from volspike.feeds.connection import Pace, close_reason
from volspike.feeds.events import FeedState
from volspike.feeds.inbox import AckDeadline, FrameIntake, Inbox
from volspike.feeds.protocol import FeedProtocol
from volspike.feeds.refusals import Refusals

_FRAMES_PER_TURN = 64
_ENDS_EARLY: Final = 600.0
_ENDS_EARLY_SHARE: Final = 0.2


class FrameReceiver:
    """Receives from one open connection. Frames go through ``intake`` into ``inbox``, which the session may replace.

    ``is_live`` is set with the first frame after the subscription, ``should_be_replaced`` when the connection is near
    the end of its lifetime at the venue. ``note_state`` makes the state of the session for a reason.
    """

    def __init__(
        self,
        connection: ClientConnection,
        settings: FeedSettings,
        protocol: FeedProtocol,
        intake: FrameIntake,
        inbox: Inbox,
        refusals: Refusals,
        pace: Pace,
        wake: asyncio.Event,
        connected: Callable[[], FeedState],
    ) -> None:
        self.connection = connection
        self.intake = intake
        self.inbox = inbox
        self.is_live = asyncio.Event()
        self.should_be_replaced = asyncio.Event()
        self._settings = settings
        self._protocol = protocol
        self._refusals = refusals
        self._pace = pace
        self._wake = wake
        self._connected = connected
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> str:
        """Subscribe and receive until the connection ends; returns the reason."""
        loop = asyncio.get_running_loop()
        settings, limits = self._settings, self._protocol.limits
        self.intake.begin_connection(time.time_ns())
        lifetime = None
        if limits.lifetime_s is not None:
            remaining_s = limits.lifetime_s - min(_ENDS_EARLY, _ENDS_EARLY_SHARE * limits.lifetime_s)
            lifetime = loop.call_later(remaining_s, self.should_be_replaced.set)
        deadline_s = limits.subscribe_within_s
        reason = "" if deadline_s is None else f"not subscribed within {deadline_s:g} s"
        try:
            async with asyncio.timeout(deadline_s) as limit:
                await self.request(self._refusals.accepted)
                self._note_connected()
                limit.reschedule(None)
                reason = f"no frame for {settings.idle_timeout_s:g} s"
                self._start(self._send_pings(), "ping")
                every_s = check_interval_s(
                    settings.heartbeat_timeout_s, settings.idle_timeout_s, settings.ack_timeout_s
                )
                with IdleTimer(self._idle_check(loop.time() + settings.ack_timeout_s), limit, every_s):
                    await self._receive()
        except TimeoutError:
            return f"{reason}: the connection was closed on our side"
        except ConnectionClosed as closed:
            return close_reason(closed)
        finally:
            if lifetime is not None:
                lifetime.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow_refusals(self) -> None:
        """From now on send the requests that refusals of the exchange make necessary, while the connection lasts."""
        self._start(self._follow_refusals(), "request again")

    async def request(self, products: tuple[str, ...]) -> None:
        """Send the subscribe messages for ``products`` within the venue's limit."""
        for message in self._protocol.subscribe_messages(self._settings, products):
            await self._send(message)

    async def _send(self, message: str | bytes) -> None:
        await asyncio.sleep(self._pace.delay_s(asyncio.get_running_loop().time()))
        await self.connection.send(message, text=True)

    def _note_connected(self) -> None:
        self.inbox.note(self._connected())
        self._wake.set()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"{name}: {self._protocol.name}"))

    async def _follow_refusals(self) -> None:
        while True:
            for products in await self._refusals.next_requests():
                await self.request(products)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.ack_timeout_s):
                    await self._refusals.wait()
                    continue
            self.inbox.note(AckDeadline(time.time_ns()))
            self._wake.set()

    async def _send_pings(self) -> None:
        """Send what the venue wants a client to send regularly; its answers are frames, and no ticks."""
        ping = self._protocol.ping
        with suppress(ConnectionClosed):
            while ping is not None:
                await asyncio.sleep(ping.every_s)
                await self._send(ping.message)

    async def _receive(self) -> NoReturn:
        """Take frames as they come; nothing here waits for the reader."""
        receive, add, now, wake = self.connection.recv, self.intake.add, time.time_ns, self._wake.set
        data = await receive(decode=False)
        self.is_live.set()
        while True:
            for _ in range(_FRAMES_PER_TURN):
                add(now(), data)
                wake()
                data = await receive(decode=False)
            await asyncio.sleep(0)  # frames that are already here arrive without a pause: let other tasks run

    def _idle_check(self, ack_deadline: float) -> Callable[[], bool]:
        """The check made while a connection lasts; returns true if the connection is idle and should be closed."""
        loop = asyncio.get_running_loop()
        is_ack_pending = True

        def check() -> bool:
            nonlocal is_ack_pending
            now = time.time_ns()
            if is_ack_pending and loop.time() >= ack_deadline:
                is_ack_pending = False
                self.inbox.note(AckDeadline(now))
            is_idle = self.intake.check_silence(now)
            self._wake.set()
            return is_idle

        return check


class IdleTimer:
    """Calls ``check`` every ``every_s`` while the context lasts; once it returns true, ``limit`` expires at once.

    ``limit`` is the ``asyncio.timeout`` around the context. If a check runs late because the event loop was busy, it
    is skipped once: frames may be waiting in the socket, so the connection may not be idle.
    """

    def __init__(self, check: Callable[[], bool], limit: asyncio.Timeout, every_s: float) -> None:
        self._check = check
        self._limit = limit
        self._every_s = every_s
        self._was_late = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._run)

    def _run(self) -> None:
        is_late = self._loop.time() > self._timer.when() + self._every_s
        self._was_late = is_late and not self._was_late
        if not self._was_late and self._check():
            self._limit.reschedule(self._loop.time())
        else:
            self._schedule()


def check_interval_s(*timeouts_s: float) -> float:
    """The interval of checks at which each timeout is noticed within a tenth of it, and within a second.

    >>> check_interval_s(10.0, 5.0)
    0.5
    """
    return max(min(1.0, *(timeout / 10 for timeout in timeouts_s)), 0.005)
