"""Alerts: the message of an opened or closed alert, its delivery to receivers, and the alerts of a stream.

Alerts are logged at once and sent to each receiver from a supervised thread. A receiver that is down, hangs or raises
delays neither the pipeline nor another receiver: queues are bounded, and alerts that cannot be delivered are counted.

A receiver is a URL of Apprise, or one whose scheme an installed distribution adds with an entry point of the group
``volspike.alerts``. URLs are secrets; logs and messages show their scheme and host only.
"""

from __future__ import annotations

import heapq
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from threading import Event
from typing import Final, Protocol, Self, TypeAlias

import msgspec
import structlog

from volspike.background import BackgroundTask, Backlog, SupervisedThread, supervised
from volspike.episodes import Episode, EpisodeTracker, TrackerState
from volspike.errors import DataError, UsageError
from volspike.market import Mode, format_time
from volspike.models.alert_thresholds import AlertThresholds
from volspike.monitoring.quiet import SendingRules, Suppression
from volspike.plugins import ALERTS, Plugin, find_plugin

QUEUE_ALERTS: Final = 256
CHECK_EVERY_S: Final = 10.0
"""How often the end of quiet hours is checked at least, as the clock may be set and the machine may sleep."""

ATTEMPTS: Final = 3

_URL: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_AUTHORITY_END: Final = re.compile(r"[/?#\\]")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_HOSTED_SCHEMES: Final = frozenset(
    (
        *("http", "json", "xml", "form", "mailto", "gotify", "mmost", "rocket", "mqtt", "xmpp", "irc", "amqp"),
        *("apprise", "rsyslog", "growl", "synology", "signal", "hassio", "mastodon", "kodi", "nctalk", "ncloud"),
    )
)
"""Schemes whose URL has a host, without the s of their TLS variants.

In others (``slack://TokenA/TokenB/TokenC``) a token is in its place.
"""

_VERBOSE_LOGGERS: Final = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib", "slixmpp")
"""Loggers that write complete URLs, with tokens, at debug or warning level."""

_log = structlog.get_logger(__name__)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that opened or closed at ``time_ns`` (UTC); ``probability`` is the one then, or the peak if closed.

    ``mode`` is that of the source. ``spike`` is the definition of a spike as a phrase; ``is_calibrated`` is False while
    the product has too few outcomes to confirm the level of the probability. ``limitations`` are those of the model on
    this market. ``is_in_sample`` is whether the time lies within the model's own data.
    """

    id: str
    product: str
    is_open: bool
    time_ns: int
    probability: float
    threshold: float
    price: float
    mode: Mode
    spike: str = ""
    is_calibrated: bool | None = None
    limitations: tuple[str, ...] = ()
    is_in_sample: bool = False

    @classmethod
    def of(
        cls,
        episode: Episode,
        price: float,
        *,
        mode: Mode,
        spike: str = "",
        is_calibrated: bool | None = None,
        limitations: Iterable[str] = (),
        is_in_sample: bool = False,
    ) -> Self:
        """The alert of an episode that opened or closed at ``price``."""
        return cls(
            id=episode.id,
            product=episode.product,
            is_open=episode.is_open,
            time_ns=episode.opened if episode.closed is None else episode.closed,
            probability=episode.peak_probability,
            threshold=episode.threshold,
            price=price,
            mode=mode,
            spike=spike,
            is_calibrated=is_calibrated,
            limitations=tuple(limitations),
            is_in_sample=is_in_sample,
        )

    @property
    def title(self) -> str:
        """One line, for a phone."""
        mark = f"{self.mode.label} " if self.mode.label else ""
        return f"{mark}{self.product}: volatility spike {'likely' if self.is_open else 'alert closed'}"

    @property
    def body(self) -> str:
        """One line with probability, threshold, definition of a spike, price and time."""
        peak = "" if self.is_open else "peak "
        text = f"{self.product}: {peak}probability {self.probability:.3f}, threshold {self.threshold:.3f}"
        text += f", price {self.price:,.10g}, {format_time(self.time_ns)}"
        text += f"; a spike is {self.spike}" if self.spike else ""
        text += ", UNCALIBRATED: too few outcomes of this product so far" if self.is_calibrated is False else ""
        text += "".join(f"; {limitation}" for limitation in self.limitations)
        text += ", IN-SAMPLE: the model was trained or evaluated on this time" if self.is_in_sample else ""
        return text + _MARKS[self.mode]


_MARKS: Final = {
    Mode.LIVE: "",
    Mode.REPLAY: ", REPLAY of a recorded tape",
    Mode.SIMULATED: ", SIMULATED market",
    Mode.SIMULATED_REPLAY: ", REPLAY of a recorded tape, SIMULATED market",
}
"""The end of an alert's text."""


class AlertMessage(Protocol):
    """A message to receivers: an alert, or the summary of quiet hours."""

    @property
    def id(self) -> str:
        """An id for the log."""

    @property
    def title(self) -> str:
        """One line, for a phone."""

    @property
    def body(self) -> str:
        """One line with the details."""


class DeliveryCounts(msgspec.Struct):
    """One receiver's alerts: delivered, failed attempts, and given up after all attempts."""

    receiver: str
    sent: int = 0
    failures: int = 0
    given_up: int = 0


class _Attempt(msgspec.Struct, order=True):
    """The next attempt to deliver a message, due at a monotonic time; the earliest is first."""

    due: float
    number: int
    attempt: int
    message: AlertMessage


class _Delivery:
    """Delivers alerts to one receiver in a supervised thread of its own, so that no receiver delays another."""

    def __init__(self, receiver: Receiver, attempts: int, backoff_s: float, queue_alerts: int) -> None:
        self._receiver = receiver
        self._attempts, self._backoff_s, self._queue_alerts = attempts, backoff_s, queue_alerts
        self.backlog: Backlog[AlertMessage] = Backlog(queue_alerts)
        self.counts = DeliveryCounts(receiver.address)
        self._retries: list[_Attempt] = []
        self._numbers = count()
        self._is_abandoned = False
        self.thread = supervised("alerts", self._deliver_all)

    def close(self, deadline_s: float) -> bool:
        """Deliver what is queued; after ``deadline_s`` drop and count the rest, and return False."""
        self.backlog.close()
        is_complete = self.thread.close(deadline_s)
        self._is_abandoned = True
        left, retries = self.backlog.drop_all(), len(self._retries)
        self.counts.given_up += retries
        if left or retries:
            _log.warning("alerts_undelivered", receiver=self.counts.receiver, alerts=left, retries=retries)
        return is_complete and not left and not retries

    def _deliver_all(self, thread: SupervisedThread) -> None:
        while not self._is_abandoned:
            wait = max(0.0, self._retries[0].due - time.monotonic()) if self._retries else None
            new = self.backlog.take(1, wait)
            for message in new:
                self._try(_Attempt(0.0, next(self._numbers), 1, message), thread)
            if new:
                continue
            if not self._retries:
                return
            self._wait_for_retry()
            self._try(heapq.heappop(self._retries), thread)

    def _wait_for_retry(self) -> None:
        """A closed backlog returns at once, so that this waits for the next retry."""
        while not self._is_abandoned and (wait := self._retries[0].due - time.monotonic()) > 0.0:
            time.sleep(min(wait, 0.05))

    def _try(self, attempt: _Attempt, thread: SupervisedThread) -> None:
        """One attempt; after a failure it is queued again or given up."""
        if self._is_abandoned:
            return
        if self._send(attempt.message, thread):
            self.counts.sent += 1
            return
        self.counts.failures += 1
        if attempt.attempt < self._attempts:
            attempt.due = time.monotonic() + self._backoff_s * 2.0 ** (attempt.attempt - 1)
            attempt.attempt += 1
            heapq.heappush(self._retries, attempt)
            if len(self._retries) <= self._queue_alerts:
                return
            attempt = heapq.heappop(self._retries)
        self.counts.given_up += 1
        receiver = self.counts.receiver
        _log.warning("alert_undelivered", receiver=receiver, id=attempt.message.id, given_up=self.counts.given_up)

    def _send(self, message: AlertMessage, thread: SupervisedThread) -> bool:
        """Send once. A receiver that raises has failed; only the kind of its error is reported.

        The text of the error, and the values in its traceback, may contain the receiver's URL.
        """
        try:
            is_sent = self._receiver.send(message.title, message.body)
        except BaseException as error:  # noqa: BLE001  other people's plugins may raise anything
            thread.fail(f"{self.counts.receiver}: {type(error).__name__}")
            return False
        if is_sent:
            thread.succeed()
        return is_sent


class AlertRouter:
    """Sends alerts to every receiver, each in a thread of its own; without receivers alerts are only logged.

    ``rules`` may keep an alert from being sent: in quiet hours, or while its product is snoozed. After quiet hours with
    alerts a summary is sent.

    Each delivery is tried ``attempts`` times, after ``backoff_s``, twice that, and so on; new alerts precede retries.
    If ``queue_alerts`` wait for a receiver, the oldest is dropped and counted.

    Args:
        urls: URLs of receivers: of Apprise, or with the scheme of a plug-in.
        receivers: additional receivers.
        rules: which alerts are sent; all by default.
        timeout_s: limit for a receiver to connect, and between two parts of its response.

    Raises:
        UsageError: a text that is not a URL.
    """

    def __init__(
        self,
        urls: Sequence[str] = (),
        *,
        receivers: Sequence[Receiver] = (),
        rules: SendingRules | None = None,
        timeout_s: float = 4.0,
        attempts: int = ATTEMPTS,
        backoff_s: float = 1.0,
        queue_alerts: int = QUEUE_ALERTS,
    ) -> None:
        every: list[Receiver] = [*(receiver_for(url, timeout_s) for url in urls), *receivers]
        self._deliveries = [_Delivery(receiver, attempts, backoff_s, queue_alerts) for receiver in every]
        self.rules = SendingRules() if rules is None else rules
        self._is_closing = Event()
        self._watch = supervised("quiet hours", self._watch_quiet_hours) if self.rules.has_summaries else None

    def __repr__(self) -> str:
        return f"AlertRouter({[delivery.counts.receiver for delivery in self._deliveries]!r})"

    @property
    def deliveries(self) -> tuple[DeliveryCounts, ...]:
        """The counts of each receiver, in the given order."""
        return tuple(msgspec.structs.replace(delivery.counts) for delivery in self._deliveries)

    @property
    def tasks(self) -> tuple[BackgroundTask, ...]:
        """The background tasks that deliver alerts, and that wait for the end of quiet hours."""
        watch = () if self._watch is None else (self._watch,)
        return (*(delivery.thread for delivery in self._deliveries), *watch)

    @property
    def dropped(self) -> int:
        """Alerts that were not sent to a receiver: its queue was full, or the router was closed first."""
        return sum(delivery.backlog.dropped for delivery in self._deliveries)

    def send(self, alert: Alert) -> Suppression | None:
        """Log the alert and queue it, unless the rules suppress it; returns the reason. Never waits for a receiver."""
        suppression = self.rules.suppress(alert)
        _log.warning(
            "alert_opened" if alert.is_open else "alert_closed",
            id=alert.id,
            product=alert.product,
            probability=alert.probability,
            threshold=alert.threshold,
            price=alert.price,
            time=format_time(alert.time_ns),
            mode=alert.mode,
            simulated=alert.mode.is_simulated,
            in_sample=alert.is_in_sample,
            limitations=list(alert.limitations),
            suppressed=suppression,
        )
        if suppression is None:
            self._queue(alert)
        return suppression

    def _queue(self, message: AlertMessage) -> None:
        for delivery in self._deliveries:
            if not delivery.backlog.put(message):
                _log.warning("alert_dropped", receiver=delivery.counts.receiver, dropped=delivery.backlog.dropped)

    def send_summary(self) -> None:
        """Queue the summary of quiet hours that have ended with alerts; nothing at other times."""
        summary = self.rules.take_summary()
        if summary is not None:
            _log.warning("quiet_hours_ended", summary=summary.body)
            self._queue(summary)
        self.rules.save()

    def _watch_quiet_hours(self, thread: SupervisedThread) -> None:
        while True:
            self.send_summary()
            thread.succeed()
            left = self.rules.seconds_left()
            if self._is_closing.wait(CHECK_EVERY_S if left is None else min(left, CHECK_EVERY_S)):
                return

    def close(self, deadline_s: float = 5.0) -> bool:
        """Deliver what is queued; after ``deadline_s`` drop and count the rest, and return False.

        Alerts that quiet hours hold are kept in the file of the rules for the next start.
        """
        end = time.monotonic() + deadline_s
        self._is_closing.set()
        if self._watch is not None:
            self._watch.close(deadline_s)
        self.rules.close()
        for delivery in self._deliveries:
            delivery.backlog.close()
        complete = [delivery.close(max(0.0, end - time.monotonic())) for delivery in self._deliveries]
        return all(complete)


class Receiver(Protocol):
    """A destination of alerts, which may be slow or unreachable."""

    @property
    def address(self) -> str:
        """Its address without secrets."""

    def send(self, title: str, body: str) -> bool:
        """Try to send a message once; False if it failed. Called from one thread; may take seconds, and may raise."""


def check_url(url: str) -> None:
    """Refuse a text that is no URL.

    Raises:
        UsageError: the error does not repeat the text.
    """
    if _URL.fullmatch(url) is None:
        raise UsageError(
            "an alert receiver is not an Apprise URL (scheme://…); it is not shown because it may contain a secret"
        )


def receiver_for(url: str, timeout_s: float = 4.0) -> Receiver:
    """The receiver of a URL: that of the plug-in whose entry point is named like its scheme, otherwise Apprise's.

    Raises:
        UsageError: the text is not a URL, or several distributions add its scheme.
    """
    match = _URL.fullmatch(url)
    plugin = None if match is None else find_plugin(ALERTS, match[1].lower())
    return AppriseReceiver(url, timeout_s) if plugin is None else PluginReceiver(plugin, url, timeout_s)


class PluginReceiver:
    """A receiver of an installed distribution, which is imported with the first message.

    The entry point names a callable that takes the URL and a time limit in seconds, and returns an object with
    ``send(title, body) -> bool``.
    """

    def __init__(self, plugin: Plugin, url: str, timeout_s: float = 4.0) -> None:
        self._plugin, self._url, self._timeout_s = plugin, url, timeout_s
        self._send: Callable[[str, str], object] | None = None

    @property
    def address(self) -> str:
        """The scheme: only the plug-in knows which parts of the rest are secret."""
        return safe_address(self._url)

    def __repr__(self) -> str:
        return f"PluginReceiver({self.address!r})"

    def send(self, title: str, body: str) -> bool:
        """Try to send a message once; False unless the plug-in returns True. Raises what the plug-in raises."""
        if self._send is None:
            try:
                self._send = self._plugin.load()(self._url, self._timeout_s).send
            except BaseException as error:  # the message may hold the URL, so the log has the type alone
                cause = error.__cause__ or error
                reason = f"{type(cause).__name__} in {self._plugin.place}"
                _log.error("alert_receiver_unusable", receiver=self.address, reason=reason)
                raise
        return self._send(title, body) is True


class AppriseReceiver:
    """A receiver with an Apprise URL. Apprise is imported with the first message, since that takes a second.

    Raises:
        UsageError: the text is not a URL; the error does not repeat it.
    """

    def __init__(self, url: str, timeout_s: float = 4.0) -> None:
        check_url(url)
        self._url = url
        self._timeout_s = timeout_s
        self._notifier: _Notifier | None = None
        self._unusable: str | None = None

    @property
    def address(self) -> str:
        """Scheme and host."""
        return safe_address(self._url)

    def __repr__(self) -> str:
        return f"AppriseReceiver({self.address!r})"

    def send(self, title: str, body: str) -> bool:
        """Try to send a message once; False if it failed or Apprise does not support the URL."""
        is_first = self._unusable is None
        unusable = self.prepare()
        if unusable and is_first:
            _log.error("alert_receiver_unusable", receiver=self.address, reason=unusable)
        return self._notifier is not None and self._notifier.send(title, body)

    def prepare(self) -> str:
        """Load the service of the URL, once; returns why it cannot be used, without secrets, empty if it can."""
        if self._unusable is None:
            self._unusable = self._load()
        return self._unusable

    def _load(self) -> str:
        try:
            self._notifier = _Notifier(self._url, self._timeout_s)
        except ImportError:
            return "the package apprise is not installed"
        except (ValueError, TypeError, KeyError, AttributeError):  # the message of an Apprise plugin may hold secrets
            return "Apprise does not support this URL, or a part of it is missing"
        return ""


class _Notifier:
    """Apprise with a single service, called in our thread instead of Apprise's pool.

    Raises:
        ImportError: Apprise is not installed.
        ValueError: Apprise does not support the URL.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        mute_url_loggers()
        import apprise  # noqa: PLC0415  takes a second, needed only with receivers

        # with a service timeout Apprise would use its thread pool, where a hanging thread delays our exit
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


def mute_url_loggers() -> None:
    """Silence the libraries that would log URLs with tokens; this module logs failures itself."""
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def safe_address(url: str) -> str:
    """The parts of an Apprise URL that contain no secret: its scheme, and its host if it has one.

    >>> safe_address("json://user:secret@hooks.example.org:8080/token?key=secret")
    'json://hooks.example.org'
    >>> safe_address("slack://TokenA/TokenB/TokenC")
    'slack://…'
    """
    match = _URL.fullmatch(url)
    if match is None:
        return "(no address)"
    scheme, rest = match[1].lower(), match[2]
    end = _AUTHORITY_END.search(rest)
    authority, tail = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    host = re.sub(r":\d*$", "", authority.rpartition("@")[2])
    has_host = scheme in _HOSTED_SCHEMES or scheme.removesuffix("s") in _HOSTED_SCHEMES
    # an @ in the tail may mean that a password contains a slash, and the host follows it
    is_plain = has_host and "@" not in tail and "%40" not in tail and _HOST.fullmatch(host) is not None
    return f"{scheme}://{host}" if is_plain else f"{scheme}://…"


LimitationTexts: TypeAlias = Callable[[str, bool], Iterable[str]]
"""The limitations of the model on a product, whose market may be simulated."""


class _StreamState(msgspec.Struct, frozen=True):
    """The snapshot of ``StreamAlerts``; ``thresholds`` are those of products that differ from ``threshold``."""

    threshold: float
    trackers: dict[str, TrackerState]
    thresholds: dict[str, float] = {}


class StreamAlerts:
    """The alerts of a stream partition's products, with state that survives restarts; ``streams.predictor.AlertWatch``.

    Without a ``router`` alerts are marked in the predictions and sent nowhere. ``spike`` is the definition of a spike
    as a phrase, and ``limitations`` those of the model. ``thresholds`` replace ``threshold``, the model's, for some
    products.
    """

    def __init__(
        self,
        threshold: float,
        router: AlertRouter | None = None,
        *,
        spike: str = "",
        limitations: LimitationTexts | None = None,
        thresholds: AlertThresholds | None = None,
    ) -> None:
        self._threshold = threshold
        self._thresholds = AlertThresholds() if thresholds is None else thresholds
        self._spike = spike
        self._limitations = limitations
        self._router = router
        self._trackers: dict[str, EpisodeTracker] = {}

    def threshold_of(self, product: str) -> float:
        """The alert threshold of a product."""
        return self._thresholds.of(product, self._threshold)

    def update(
        self, product: str, time_ns: int, probability: float | None, price: float, *, simulated: bool
    ) -> Alert | None:
        """The alert that a row opens or closes, not sent yet."""
        tracker = self._trackers.get(product)
        if tracker is None:
            tracker = self._trackers[product] = EpisodeTracker(self.threshold_of(product), product=product)
        episode = tracker.update(time_ns, probability)
        if episode is None:
            return None
        limitations = () if self._limitations is None else self._limitations(product, simulated)
        mode = Mode.of(simulated=simulated)
        return Alert.of(episode, price, mode=mode, spike=self._spike, limitations=limitations)

    def publish(self, alert: Alert) -> None:
        """Send an alert to the router."""
        if self._router is not None:
            self._router.send(alert)

    def snapshot(self) -> bytes:
        """The state of all trackers."""
        trackers = {product: tracker.state() for product, tracker in self._trackers.items()}
        thresholds = {
            product: tracker.threshold
            for product, tracker in self._trackers.items()
            if tracker.threshold != self._threshold
        }
        return msgspec.msgpack.encode(_StreamState(self._threshold, trackers, thresholds))

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot; a product whose threshold has changed starts without an open alert.

        Raises:
            DataError: the bytes are not a snapshot.
        """
        try:
            state = msgspec.msgpack.decode(snapshot, type=_StreamState)
        except msgspec.DecodeError as error:
            raise DataError(f"not a snapshot of stream alerts: {error}") from error
        for product, tracker in state.trackers.items():
            threshold = self.threshold_of(product)
            if threshold == state.thresholds.get(product, state.threshold):
                self._trackers[product] = EpisodeTracker(threshold, product=product)
                self._trackers[product].resume(tracker)
