"""Whether the exchange answers, takes the subscription, and tells ticks of the products asked for."""

from __future__ import annotations

import asyncio
import time

from volspike.config import FeedSettings
from volspike.doctor.finding import Fact, Finding, Severity
from volspike.feeds.events import FeedError, FeedFrame, FeedState
from volspike.feeds.session import FeedSession

CHECK = "feed"


async def look_at_feed(settings: FeedSettings, within_s: float) -> list[Finding]:
    """Listens as ``volspike up`` would, until each product told a tick or patience is over.

    Raises:
        UsageError: the url is none of a websocket.
    """
    async with FeedSession(settings) as session:
        heard = _Heard(settings.products)
        try:
            async with asyncio.timeout(within_s):
                await heard.listen(session)
        except TimeoutError:
            return [heard.finding(session.url, within_s)]
        return [heard.finding(session.url, within_s)]


class _Heard:
    """What the session told so far."""

    def __init__(self, products: tuple[str, ...]) -> None:
        self._missing = set(products)
        self._began = time.monotonic()
        self._first_tick_s: float | None = None
        self._is_connected = False
        self._reason = "no answer"
        self._refused = ""

    async def listen(self, session: FeedSession) -> None:
        """Takes events until there is nothing left to wait for."""
        async for event in session.events():
            match event:
                case FeedState(is_connected=True):
                    self._is_connected = True
                case FeedState():
                    self._reason = event.reason
                case FeedError():
                    self._refused = event.reason
                    return
                case FeedFrame() if event.frame.ticks:
                    self._missing -= {tick.product_id for tick in event.frame.ticks}
                    if self._first_tick_s is None:
                        self._first_tick_s = time.monotonic() - self._began
                    if not self._missing:
                        return

    def finding(self, url: str, within_s: float) -> Finding:
        """What it comes to."""
        facts: dict[str, Fact] = {"url": url, "first_tick_s": self._first_tick_s}
        if self._refused:
            found = f"{url} refuses: {self._refused}"
            return _finding(Severity.BAD, found, "name products that the exchange has: --pair BTC-USD", facts)
        if not self._is_connected:
            found = f"{url} cannot be reached within {within_s:g} s: {self._reason}"
            remedy = (
                "look at the network, a proxy and COINBASE_WS_URL; "
                "`volspike up --source simulator` runs without an exchange"
            )
            return _finding(Severity.BAD, found, remedy, facts)
        if self._missing:
            found = f"{url} answers, and told nothing of {', '.join(sorted(self._missing))} within {within_s:g} s"
            return _finding(Severity.WARNING, found, "look again with a longer --timeout; check --pair", facts)
        return _finding(Severity.FINE, f"{url} answers, first tick after {self._first_tick_s:.2f} s", "", facts)


def _finding(severity: Severity, found: str, remedy: str, facts: dict[str, Fact]) -> Finding:
    return Finding(check=CHECK, severity=severity, found=found, remedy=remedy, facts=facts)
