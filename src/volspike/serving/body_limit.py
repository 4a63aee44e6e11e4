"""Bodies are read here, up to a limit and a deadline, and handed on whole: nothing behind this holds more.

A body that is too large is answered at once; what the client still sends is then thrown away for a short while, because
closing a socket on unread bytes resets it, and a client would lose the answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from volspike.serving.answers import Problem, encode

LINGER_SECONDS: Final = 2.0
LINGER_BODIES: Final = 16
"""What is thrown away after a refusal, at most: so many times the limit."""

BODILESS: Final = frozenset({"GET", "HEAD"})


class BodyLimit:
    """Pure ASGI middleware: 413 for a body over ``limit`` bytes, 408 for one that does not arrive in time."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its whole body, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _declared_length(scope) > self._limit:
            await self._refuse_large(receive, send)
        elif scope["method"] in BODILESS:
            await self.app(scope, receive, send)
        else:
            await self._collect(scope, receive, send)

    async def _collect(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._limit:
                        break
        except TimeoutError:
            await _refuse(send, 408, f"the body did not arrive within {self._seconds:g} s")
            await send(_LAST)
            return
        if len(body) > self._limit:
            await self._refuse_large(receive if more else None, send)
        else:
            await self.app(scope, _replay(bytes(body), receive), send)

    async def _refuse_large(self, receive: Receive | None, send: Send) -> None:
        await _refuse(send, 413, f"the body is over {self._limit} bytes; send fewer rows at a time")
        if receive is not None:
            await _throw_away(receive, LINGER_BODIES * self._limit)
        await send(_LAST)


def _declared_length(scope: Scope) -> int:
    """What Content-Length says, 0 where nothing does; the HTTP parser has refused what is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that tells the whole body once, and then whatever the connection tells."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _throw_away(receive: Receive, most: int) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _refuse(send: Send, status: int, detail: str) -> None:
    """Tell the whole answer, but leave it open, for ``_LAST`` to end it and with it the connection."""
    content = encode(Problem(detail))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})


_LAST: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}
