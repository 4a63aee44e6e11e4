"""One websocket connection to an exchange: opening, closing, backoff between attempts and request limits.

The websockets library sends and answers pings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.uri import WebSocketURI, parse_uri

from volspike.config import FeedSettings
from volspike.errors import UsageError

MARKET_HEADER: Final = "Volspike-Market"
SIMULATED: Final = "simulated"
"""The handshake header, and its value, by which a simulated exchange makes itself known."""

_BUFFERED_FRAMES = 256


async def open_connection(url: str, settings: FeedSettings) -> ClientConnection:
    """A connection after its handshake.

    Raises:
        OSError: the host is unreachable or does not answer within the connect timeout.
        WebSocketException: the host does not speak websocket or refuses the handshake.
    """
    return await connect(
        url,
        compression="deflate" if settings.compression else None,
        proxy=proxy_for(parse_address(url)),
        open_timeout=settings.connect_timeout_s,
        close_timeout=settings.close_timeout_s,
        max_size=settings.max_frame_bytes,
        max_queue=_BUFFERED_FRAMES,
    )


async def close_connection(connection: ClientConnection) -> None:
    """Send a close frame and wait until the socket is closed, at most for the close timeout of the settings."""
    try:
        await connection.close()
    except asyncio.CancelledError:  # cancelled again while closing: skip the closing handshake
        connection.transport.abort()
        raise


def close_reason(closed: ConnectionClosed) -> str:
    """The side that closed a connection, with code and reason."""
    if closed.sent is not None and not closed.rcvd_then_sent:
        return f"the connection was closed on our side: {closed.sent}"
    if closed.rcvd is not None:
        return f"the exchange closed the connection: {closed.rcvd}"
    return f"the connection broke: {closed.__cause__ or 'no close frame came'}"


def is_simulated(connection: ClientConnection) -> bool:
    """Whether the exchange said in its handshake that it is simulated."""
    return connection.response is not None and connection.response.headers.get(MARKET_HEADER) == SIMULATED


async def probe_simulated(url: str, settings: FeedSettings) -> bool | None:
    """Whether the exchange at ``url`` is simulated, from a connection of its own; None if unreachable.

    Raises:
        UsageError: the url is not a websocket url.
    """
    try:
        connection = await open_connection(url, settings)
    except (OSError, WebSocketException):
        return None
    try:
        return is_simulated(connection)
    finally:
        await close_connection(connection)


def parse_address(url: str) -> WebSocketURI:
    """The parts of a websocket url; raises ``UsageError`` for any other url."""
    try:
        return parse_uri(url)
    except InvalidURI as error:
        raise UsageError(f"{error}; the url of a feed starts with ws:// or wss://") from error


def proxy_for(address: WebSocketURI) -> Literal[True] | None:
    """``True`` for the system's proxy; None, for no proxy, to an exchange on this machine."""
    if address.host == "localhost":
        return None
    try:
        return None if ip_address(address.host).is_loopback else True
    except ValueError:
        return True


class Backoff:
    """Exponential backoff with full jitter: uniform between 0 and a ceiling that doubles up to ``most_s``.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. ``jitter`` draws from [0, 1).
    """

    def __init__(self, least_s: float, most_s: float, jitter: Callable[[], float]) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """Start again with the shortest wait."""
        self._ceiling_s = min(self._least_s, self._most_s)

    def delay_s(self) -> float:
        """The next wait in seconds."""
        delay = self._jitter() * self._ceiling_s
        self._ceiling_s = min(2 * self._ceiling_s, self._most_s)
        return delay


class Pace:
    """A limit of ``limit`` requests within any ``span_s`` seconds."""

    def __init__(self, limit: int, span_s: float = 1.0) -> None:
        self._span_s = span_s
        self._turns: deque[float] = deque(maxlen=limit)

    def delay_s(self, now: float) -> float:
        """How long the next request must wait from ``now`` (seconds of a monotonic clock); counts that request."""
        turn = now
        if len(self._turns) == self._turns.maxlen:
            turn = max(now, self._turns[0] + self._span_s)
        self._turns.append(turn)
        return turn - now
