"""How long to wait: between attempts that fail, and for what an exchange allows per second.

The websocket itself: how it is opened, how it is closed, and how its end is told. Pings are the library's.
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


class Backoff:
    """Exponential backoff with full jitter: evenly between 0 and a ceiling that doubles up to ``most_s``.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. ``jitter`` draws from [0, 1).
    """

    def __init__(self, least_s: float, most_s: float, jitter: Callable[[], float]) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """Begin again at the shortest wait."""
        self._ceiling_s = min(self._least_s, self._most_s)

    def delay_s(self) -> float:
        """The next wait in seconds."""
        delay = self._jitter() * self._ceiling_s
        self._ceiling_s = min(2 * self._ceiling_s, self._most_s)
        return delay


class Pace:
    """At most ``limit`` of something within any ``span_s`` seconds."""

    def __init__(self, limit: int, span_s: float = 1.0) -> None:
        self._span_s = span_s
        self._turns: deque[float] = deque(maxlen=limit)

    def delay_s(self, now: float) -> float:
        """How long the next one has to wait from ``now`` (seconds of any clock that goes forward); takes its turn."""
        turn = now
        if len(self._turns) == self._turns.maxlen:
            turn = max(now, self._turns[0] + self._span_s)
        self._turns.append(turn)
        return turn - now


MARKET_HEADER: Final = "Volspike-Market"
SIMULATED: Final = "simulated"
"""How a simulated exchange says in its handshake that it is one: what it tells must not be taken for a market."""

_BUFFERED_FRAMES = 256


def address_of(url: str) -> WebSocketURI:
    """The parts of a url; raises ``UsageError`` if it is none of a websocket."""
    try:
        return parse_uri(url)
    except InvalidURI as error:
        raise UsageError(f"{error}; a feed's url begins with ws:// or wss://") from error


def proxy_for(address: WebSocketURI) -> Literal[True] | None:
    """``True``, the system's proxy, or none to an exchange that is simulated on this machine."""
    if address.host == "localhost":
        return None
    try:
        return None if ip_address(address.host).is_loopback else True
    except ValueError:
        return True


async def opened(address: WebSocketURI, url: str, settings: FeedSettings) -> ClientConnection:
    """A connection that has shaken hands.

    Raises:
        OSError: nobody is there, or nobody answers within the connect timeout.
        WebSocketException: whoever is there does not speak, or does not want to.
    """
    return await connect(
        url,
        compression="deflate" if settings.compression else None,
        proxy=proxy_for(address),
        open_timeout=settings.connect_timeout_s,
        close_timeout=settings.close_timeout_s,
        max_size=settings.max_frame_bytes,
        max_queue=_BUFFERED_FRAMES,
    )


def is_simulated(connection: ClientConnection) -> bool:
    """Whether the exchange says that its market is a simulated one."""
    return connection.response is not None and connection.response.headers.get(MARKET_HEADER) == SIMULATED


async def says_simulated(url: str, settings: FeedSettings) -> bool | None:
    """The same of the exchange at ``url``, asked in a connection of its own; None where nobody answers.

    Raises:
        UsageError: the url is none of a websocket.
    """
    try:
        connection = await opened(address_of(url), url, settings)
    except (OSError, WebSocketException):
        return None
    try:
        return is_simulated(connection)
    finally:
        await close(connection)


def why(closed: ConnectionClosed) -> str:
    """Who ended a connection, with which code and reason."""
    if closed.sent is not None and not closed.rcvd_then_sent:
        return f"the connection was closed on our side: {closed.sent}"
    if closed.rcvd is not None:
        return f"the exchange closed the connection: {closed.rcvd}"
    return f"the connection broke: {closed.__cause__ or 'no close frame came'}"


async def close(connection: ClientConnection) -> None:
    """Say goodbye and wait until the socket is closed, for the settings' close timeout at most."""
    try:
        await connection.close()
    except asyncio.CancelledError:  # the second time: there is no patience left for a handshake
        connection.transport.abort()
        raise
