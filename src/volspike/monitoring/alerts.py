"""Alerts on their way out: to the log at once, and to every receiver from a thread that may be slow.

A dead receiver costs the pipeline nothing: handing over never waits, and what cannot be told is counted.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from itertools import count
from threading import Thread
from typing import Final

import msgspec
import structlog

from volspike.background import Backlog
from volspike.market import instant
from volspike.monitoring.receivers import AppriseReceiver, Receiver

QUEUE_ALERTS: Final = 256
ATTEMPTS: Final = 3

_log = structlog.get_logger(__name__)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What is told when an episode opens or closes; ``time_ns`` UTC, ``probability`` now or the peak at the close."""

    id: str
    product: str
    is_open: bool
    time_ns: int
    probability: float
    threshold: float
    price: float
    simulated: bool

    @property
    def title(self) -> str:
        """One line for a phone."""
        mark = "SIMULATED " if self.simulated else ""
        return f"{mark}{self.product}: volatility spike {'likely' if self.is_open else 'over'}"

    @property
    def body(self) -> str:
        """The same with its numbers."""
        peak = "" if self.is_open else "peak "
        text = f"{self.product}: {peak}probability {self.probability:.3f}, threshold {self.threshold:.3f}"
        text += f", price {self.price:,.10g}, {instant(self.time_ns)}"
        return f"{text}, SIMULATED market" if self.simulated else text


class Tally(msgspec.Struct):
    """How one receiver fared: alerts it took, attempts that failed, alerts that were given up."""

    receiver: str
    sent: int = 0
    failures: int = 0
    given_up: int = 0


class _Retry(msgspec.Struct, order=True):
    """An alert that waits to be told again; earliest first."""

    due: float
    number: int
    receiver: int
    attempt: int
    alert: Alert


class AlertRouter:
    """Tells every receiver of every alert, in one thread of its own; without receivers alerts go to the log alone.

    Each is tried ``attempts`` times, with waits of ``backoff_s``, twice that, and so on; new alerts go before
    waiting ones. When ``queue_alerts`` wait the oldest is let go and counted. URLs are secrets: only scheme and
    host are ever shown.

    Args:
        urls: Apprise URLs.
        timeout_s: the most that a receiver may take to connect, and between two parts of its answer.
        receivers: others than Apprise's.

    Raises:
        UsageError: a text that is no URL.
    """

    def __init__(
        self,
        urls: Sequence[str] = (),
        *,
        receivers: Sequence[Receiver] = (),
        timeout_s: float = 4.0,
        attempts: int = ATTEMPTS,
        backoff_s: float = 1.0,
        queue_alerts: int = QUEUE_ALERTS,
    ) -> None:
        self._receivers: list[Receiver] = [*(AppriseReceiver(url, timeout_s) for url in urls), *receivers]
        self._attempts, self._backoff_s, self._queue_alerts = attempts, backoff_s, queue_alerts
        self._backlog: Backlog[Alert] = Backlog(queue_alerts)
        self._retries: list[_Retry] = []
        self._numbers = count()
        self._is_abandoned = False
        self._tallies = [Tally(receiver.address) for receiver in self._receivers]
        self._thread = Thread(target=self._tell_all, name="volspike-alerts", daemon=True) if self._receivers else None
        if self._thread is not None:
            self._thread.start()

    def __repr__(self) -> str:
        return f"AlertRouter({[receiver.address for receiver in self._receivers]!r})"

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """How each receiver fared, in the order in which they were given."""
        return tuple(msgspec.structs.replace(tally) for tally in self._tallies)

    @property
    def let_go(self) -> int:
        """Alerts that no receiver was told of: too many waited, or the end came first."""
        return self._backlog.let_go

    def send(self, alert: Alert) -> None:
        """Logs the alert and hands it over; never waits for a receiver."""
        _log.warning(
            "alert_opened" if alert.is_open else "alert_closed",
            id=alert.id,
            product=alert.product,
            probability=alert.probability,
            threshold=alert.threshold,
            price=alert.price,
            time=instant(alert.time_ns),
            simulated=alert.simulated,
        )
        if self._thread is not None and not self._backlog.put(alert):
            _log.warning("alert_let_go", let_go=self._backlog.let_go)

    def close(self, deadline_s: float = 5.0) -> bool:
        """Tells what waits; after ``deadline_s`` the rest is let go and counted, and False returned."""
        self._backlog.close()
        if self._thread is None:
            return True
        self._thread.join(deadline_s)
        if not self._thread.is_alive():
            return True
        self._is_abandoned = True
        left = self._backlog.abandon()
        retries = list(self._retries)
        for one in retries:
            self._tallies[one.receiver].given_up += 1
        _log.warning("alerts_not_told", alerts=left, retries=len(retries))
        return False

    def _tell_all(self) -> None:
        while not self._is_abandoned:
            wait = max(0.0, self._retries[0].due - time.monotonic()) if self._retries else None
            fresh = self._backlog.take(1, wait)
            for alert in fresh:
                for receiver in range(len(self._receivers)):
                    self._tell(_Retry(0.0, next(self._numbers), receiver, 1, alert))
            if fresh:
                continue
            if not self._retries:
                return
            self._pause_until_due()
            self._tell(heapq.heappop(self._retries))

    def _pause_until_due(self) -> None:
        """A closed backlog no longer waits for us."""
        while not self._is_abandoned and (wait := self._retries[0].due - time.monotonic()) > 0.0:
            time.sleep(min(wait, 0.05))

    def _tell(self, one: _Retry) -> None:
        """One attempt at one receiver; a failed one waits for another, or is given up."""
        if self._is_abandoned:
            return
        tally = self._tallies[one.receiver]
        if self._receivers[one.receiver].send(one.alert.title, one.alert.body):
            tally.sent += 1
            return
        tally.failures += 1
        if one.attempt < self._attempts:
            one.due = time.monotonic() + self._backoff_s * 2.0 ** (one.attempt - 1)
            one.attempt += 1
            heapq.heappush(self._retries, one)
            if len(self._retries) <= self._queue_alerts:
                return
            one = heapq.heappop(self._retries)
            tally = self._tallies[one.receiver]
        tally.given_up += 1
        _log.warning("alert_not_told", receiver=tally.receiver, id=one.alert.id, given_up=tally.given_up)
