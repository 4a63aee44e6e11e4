"""One websocket connection to an exchange: opening, closing, backoff between attempts and request limits.

The websockets library sends pings, so that routers keep the connection, and answers them. A missing answer closes no
connection, because a busy exchange answers late: any frame is a sign of life, and the session's idle timer closes a
connection without frames.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final, Self
from urllib.request import getproxies, proxy_bypass

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, InvalidURI, WebSocketException
from websockets.proxy import get_proxy, parse_proxy
from websockets.uri import WebSocketURI, parse_uri

from volspike.config import FeedSettings
from volspike.errors import UsageError

MARKET_HEADER: Final = "Volspike-Market"
SIMULATED: Final = "simulated"
"""The handshake header, and its value, by which a simulated exchange makes itself known."""

_BUFFERED_FRAMES = 256
PING_EVERY_S = 20.0
LONGEST_RETRY_AFTER_S: Final = 600.0


async def open_connection(url: str, settings: FeedSettings) -> ClientConnection:
    """A connection after its handshake.

    Raises:
        OSError: the host is unreachable or does not answer within the connect timeout.
        WebSocketException: the host does not speak websocket or refuses the handshake.
        UsageError: the url is not a websocket url, or the proxy of the environment cannot be used.
    """
    return await connect(
        url,
        compression="deflate" if settings.compression else None,
        proxy=proxy_for(parse_address(url)),
        open_timeout=settings.connect_timeout_s,
        ping_interval=PING_EVERY_S,
        ping_timeout=None,
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


@dataclass(frozen=True, slots=True)
class Reachability:
    """Whether an exchange answered a connection of its own, and whether it said that it is simulated.

    ``reason`` is empty if it answered, else the reason why not.
    """

    is_reachable: bool
    is_simulated: bool = False
    reason: str = ""


async def check_reachability(url: str, settings: FeedSettings, timeout_s: float | None = None) -> Reachability:
    """Connects to the exchange at ``url`` exactly as a session does, proxy included, and disconnects.

    An exchange that refuses the handshake for now (429, 5xx) was reached.

    Raises:
        UsageError: the url is not a websocket url, or the proxy of the environment cannot be used.
    """
    if timeout_s is not None:
        settings = msgspec.structs.replace(settings, connect_timeout_s=timeout_s)
    try:
        connection = await open_connection(url, settings)
    except InvalidStatus as error:
        status = error.response.status_code
        return Reachability(is_reachable=status == 429 or status >= 500, reason=str(error))
    except (OSError, WebSocketException) as error:
        return Reachability(is_reachable=False, reason=str(error) or type(error).__name__)
    try:
        return Reachability(is_reachable=True, is_simulated=is_simulated(connection))
    finally:
        await close_connection(connection)


def parse_address(url: str) -> WebSocketURI:
    """The parts of a websocket url; raises ``UsageError`` for any other url."""
    try:
        return parse_uri(url)
    except InvalidURI as error:
        raise UsageError(f"{error}; the url of a feed starts with ws:// or wss://") from error


def proxy_for(address: WebSocketURI) -> str | None:
    """The environment's proxy for an exchange; None without one, and for an exchange on this machine.

    The order is ``wss_proxy`` or ``ws_proxy``, ``socks_proxy``, ``https_proxy``, ``http_proxy`` (for ws:// only) and
    ``all_proxy``, in either case. Hosts in ``no_proxy`` have none. A proxy without a scheme is an HTTP proxy.

    Raises:
        UsageError: its address is invalid, or it needs a package that is not installed.
    """
    if is_this_machine(address.host):
        return None
    proxy = get_proxy(address)
    if proxy is None and not proxy_bypass(f"{address.host}:{address.port}"):
        proxy = getproxies().get("all")
    if proxy is None:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parsed = parse_proxy(proxy)
    except (InvalidProxy, ValueError) as error:
        reason = str(error).rpartition(": ")[2] if isinstance(error, InvalidProxy) else str(error)
        raise UsageError(
            f"the proxy {_without_password(proxy)} of the environment is not usable ({reason}); "
            "correct HTTPS_PROXY or ALL_PROXY, for example http://proxy.example:3128"
        ) from None
    if parsed.scheme.startswith("socks") and find_spec("python_socks") is None:
        raise UsageError(
            f"the proxy {_without_password(proxy)} of the environment needs the package python-socks: "
            "pip install python-socks, or name an HTTP proxy in HTTPS_PROXY"
        )
    return proxy


def is_this_machine(host: str) -> bool:
    """Whether a host is ``localhost`` or a loopback address.

    >>> is_this_machine("localhost"), is_this_machine("::1"), is_this_machine("10.0.0.1"), is_this_machine("a.example")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _without_password(proxy: str) -> str:
    """A proxy's address without user name and password."""
    scheme, _, rest = proxy.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def retry_after_s(text: str) -> float:
    """Seconds to wait by a header ``Retry-After`` (a number, or an HTTP date), bounded; 0 for any other text.

    >>> retry_after_s("120"), retry_after_s("soon"), retry_after_s("")
    (120.0, 0.0, 0.0)
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER_S)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def handshake_wait_s(error: Exception) -> float:
    """Seconds that an exchange which refused the handshake wants a client to wait; 0 if it states none."""
    return retry_after_s(error.response.headers.get("Retry-After", "")) if isinstance(error, InvalidStatus) else 0.0


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

    @classmethod
    def per_second(cls, rate: float) -> Self:
        """A limit of ``rate`` requests per second, which may be below 1."""
        return cls(int(rate)) if rate >= 1.0 else cls(1, 1.0 / rate)

    def delay_s(self, now: float) -> float:
        """How long the next request must wait from ``now`` (seconds of a monotonic clock); counts that request."""
        turn = now
        if len(self._turns) == self._turns.maxlen:
            turn = max(now, self._turns[0] + self._span_s)
        self._turns.append(turn)
        return turn - now
