"""Reading a session: entries of the inbox, as they come, become events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Self

from volspike.feeds.inbox import Inbox
from volspike.feeds.interpreter import Interpreter
from volspike.feeds.session_events import FeedEvent

_EVENTS_PER_TURN = 64


class EventStream:
    """The events of a session whose task is ``listening``; ends when that has and all is read.

    An object and no generator, so that whoever breaks off an iteration leaves nothing behind that has to be ended.
    """

    def __init__(
        self, inbox: Inbox, interpreter: Interpreter, news: asyncio.Event, listening: asyncio.Task[None]
    ) -> None:
        self._inbox = inbox
        self._interpreter = interpreter
        self._news = news
        self._listening = listening
        self._told: deque[FeedEvent] = deque()
        self._turn = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedEvent:
        self._turn += 1
        if self._turn % _EVENTS_PER_TURN == 0:  # a full queue must not keep the socket and others waiting
            await asyncio.sleep(0)
        while not self._told:
            entry = self._inbox.take()
            if entry is not None:
                self._told.extend(self._interpreter.read(entry))
            elif not self._listening.done():
                self._news.clear()
                await self._news.wait()
            else:
                self._end()
        return self._told.popleft()

    def _end(self) -> None:
        """Tell what is still open, then stop; an error that ended the listening is raised here."""
        self._told.extend(self._interpreter.end(time.time_ns()))
        if not self._told:
            if not self._listening.cancelled():
                self._listening.result()
            raise StopAsyncIteration
