"""Where alerts go: Apprise addresses, which are secrets, and what of them may be shown.

Alerts on their way out: to the log at once, and to every receiver from a thread that may be slow.

A dead receiver costs the pipeline nothing: handing over never waits, and what cannot be told is counted.

Alerts of a stream's partition: the episodes of its products, kept across restarts, and who is told.
"""

from __future__ import annotations

import heapq
import logging
import re
import time
from collections.abc import Sequence
from itertools import count
from threading import Thread
from typing import Final, Protocol

import msgspec
import structlog

from volspike.background import Backlog
from volspike.episodes import EpisodeTracker, TrackerState
from volspike.errors import DataError, UsageError
from volspike.market import format_time

_log = structlog.get_logger(__name__)

_SHAPE: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_AUTHORITY_END: Final = re.compile(r"[/?#\\]")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")

_HOSTED: Final = frozenset(
    (
        "http",
        "json",
        "xml",
        "form",
        "mailto",
        "gotify",
        "mmost",
        "rocket",
        "mqtt",
        "xmpp",
        "irc",
        "amqp",
        "apprise",
        "rsyslog",
        "growl",
        "synology",
        "signal",
        "hassio",
        "mastodon",
        "kodi",
        "nctalk",
        "ncloud",
    )
)
"""Schemes whose address names a host, without the s of their secure forms.

In others (``slack://TokenA/TokenB/TokenC``) a token stands in its place.
"""

_TALKATIVE: Final = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib", "slixmpp")
"""Loggers that tell whole addresses, with their tokens, when they debug or warn."""


def safe_address(url: str) -> str:
    """What may be shown of an Apprise URL: its scheme, and its host where that is one.

    >>> safe_address("json://user:secret@hooks.example.org:8080/token?key=secret")
    'json://hooks.example.org'
    >>> safe_address("slack://TokenA/TokenB/TokenC")
    'slack://…'
    """
    match = _SHAPE.fullmatch(url)
    if match is None:
        return "(no address)"
    scheme, rest = match[1].lower(), match[2]
    end = _AUTHORITY_END.search(rest)
    authority, tail = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    host = re.sub(r":\d*$", "", authority.rpartition("@")[2])
    names_host = scheme in _HOSTED or scheme.removesuffix("s") in _HOSTED
    # an @ further on may mean that a password holds a slash, and the host is elsewhere
    is_plain = names_host and "@" not in tail and "%40" not in tail and _HOST.fullmatch(host) is not None
    return f"{scheme}://{host}" if is_plain else f"{scheme}://…"


class Receiver(Protocol):
    """Somebody who can be told, slowly or not at all."""

    @property
    def address(self) -> str:
        """What may be shown of where it is."""

    def send(self, title: str, body: str) -> bool:
        """Tells it once; False when it did not take it. Called from one thread; may take seconds."""


class AppriseReceiver:
    """One Apprise URL. Apprise is loaded with the first message, since that takes a second.

    Raises:
        UsageError: the text is no URL; it is not repeated.
    """

    def __init__(self, url: str, timeout_s: float = 4.0) -> None:
        if _SHAPE.fullmatch(url) is None:
            raise UsageError("an alert receiver is no Apprise URL (scheme://…); it is not shown, as it may be a secret")
        self._url = url
        self._timeout_s = timeout_s
        self._service: _Notifier | None = None
        self._is_loaded = False

    @property
    def address(self) -> str:
        """Scheme and host."""
        return safe_address(self._url)

    def __repr__(self) -> str:
        return f"AppriseReceiver({self.address!r})"

    def send(self, title: str, body: str) -> bool:
        """Tells it once; False when it did not take it, or the URL is none that Apprise knows."""
        if not self._is_loaded:
            self._service = self._load()
            self._is_loaded = True
        return self._service is not None and self._service.send(title, body)

    def _load(self) -> _Notifier | None:
        try:
            return _Notifier(self._url, self._timeout_s)
        except ImportError:
            reason = "the package apprise is not installed"
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # its text, as Apprise's plugins write it, may hold all
            reason = "Apprise does not know such an address, or a part of it is missing"
        _log.error("alert_receiver_unusable", receiver=self.address, reason=reason)
        return None


class _Notifier:
    """Apprise with a single service, told from our own thread rather than from its pool.

    Raises:
        ImportError: Apprise is not installed.
        ValueError: it does not know the URL.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        mute()
        import apprise  # noqa: PLC0415  a second to load, which only who has receivers should wait for

        # without a service timeout Apprise sends here and now: a hanging thread of its pool would hold up our exit
        asset = apprise.AppriseAsset(app_id="volspike", async_mode=False, service_timeout=0)
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            raise ValueError("unknown to Apprise")
        service.socket_connect_timeout = min(service.socket_connect_timeout, timeout_s)
        service.socket_read_timeout = min(service.socket_read_timeout, timeout_s)
        self._apprise = apprise.Apprise(asset=asset)
        self._apprise.add(service)
        self._format, self._type = apprise.NotifyFormat.TEXT, apprise.NotifyType.WARNING

    def send(self, title: str, body: str) -> bool:
        """One attempt."""
        return bool(self._apprise.notify(body, title, self._type, self._format))


def mute() -> None:
    """Silences the libraries that would write addresses and tokens into the log; failures are told by ours."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


QUEUE_ALERTS: Final = 256
ATTEMPTS: Final = 3


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
        text += f", price {self.price:,.10g}, {format_time(self.time_ns)}"
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
        return self._backlog.dropped

    def send(self, alert: Alert) -> None:
        """Logs the alert and hands it over; never waits for a receiver."""
        _log.warning(
            "alert_opened" if alert.is_open else "alert_closed",
            id=alert.id,
            product=alert.product,
            probability=alert.probability,
            threshold=alert.threshold,
            price=alert.price,
            time=format_time(alert.time_ns),
            simulated=alert.simulated,
        )
        if self._thread is not None and not self._backlog.put(alert):
            _log.warning("alert_let_go", let_go=self._backlog.dropped)

    def close(self, deadline_s: float = 5.0) -> bool:
        """Tells what waits; after ``deadline_s`` the rest is let go and counted, and False returned."""
        self._backlog.close()
        if self._thread is None:
            return True
        self._thread.join(deadline_s)
        if not self._thread.is_alive():
            return True
        self._is_abandoned = True
        left = self._backlog.drop_all()
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


class _Watched(msgspec.Struct, frozen=True):
    """A watch's snapshot."""

    threshold: float
    trackers: dict[str, TrackerState]


class StreamAlerts:
    """One tracker per product, as the live pipeline has them; ``streams.predictor.AlertWatch``.

    Without a ``router`` alerts are marked in the predictions and told to nobody.
    """

    def __init__(self, threshold: float, router: AlertRouter | None = None) -> None:
        self._threshold = threshold
        self._router = router
        self._trackers: dict[str, EpisodeTracker] = {}

    def update(
        self, product: str, time_ns: int, probability: float | None, price: float, *, simulated: bool
    ) -> Alert | None:
        """The alert that a row gives rise to; nobody is told yet."""
        tracker = self._trackers.get(product)
        if tracker is None:
            tracker = self._trackers[product] = EpisodeTracker(self._threshold, product=product)
        episode = tracker.update(time_ns, probability)
        if episode is None:
            return None
        return Alert(
            id=episode.id,
            product=product,
            is_open=episode.is_open,
            time_ns=episode.opened if episode.closed is None else episode.closed,
            probability=episode.peak_probability,
            threshold=episode.threshold,
            price=price,
            simulated=simulated,
        )

    def tell(self, told: Alert) -> None:
        """Hands an alert to the router."""
        if self._router is not None:
            self._router.send(told)

    def snapshot(self) -> bytes:
        """Every tracker's state."""
        trackers = {product: tracker.state() for product, tracker in self._trackers.items()}
        return msgspec.msgpack.encode(_Watched(self._threshold, trackers))

    def restore(self, snapshot: bytes) -> None:
        """Takes up where the snapshot was made; a model of another threshold begins without episodes.

        Raises:
            DataError: the bytes are no snapshot.
        """
        try:
            watched = msgspec.msgpack.decode(snapshot, type=_Watched)
        except msgspec.DecodeError as error:
            raise DataError(f"not a predictor's snapshot: {error}") from error
        if watched.threshold != self._threshold:
            return
        for product, state in watched.trackers.items():
            self._trackers[product] = EpisodeTracker(self._threshold, product=product)
            self._trackers[product].resume(state)
