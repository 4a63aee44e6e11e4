"""Checks over the network: Kafka, the API, MLflow, Prometheus, the exchange's feed and clock, and the archives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import msgspec

from volspike.config import FeedSettings
from volspike.doctor.finding import Fact, Finding, Severity, check_rest_url, fetch, is_invalid_url
from volspike.errors import StreamError, UsageError
from volspike.feeds.connection import parse_address, proxy_for
from volspike.feeds.events import FeedError, FeedFrame, FeedState
from volspike.feeds.rest import checked_url
from volspike.feeds.session import FeedSession
from volspike.feeds.venues import all_protocols
from volspike.history.archives import ARCHIVES, ArchiveFile, source_product
from volspike.history.paged import PAGED_VENUES
from volspike.market import SECOND_NS, parse_time
from volspike.training.tracking import database_file, masked

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings

KAFKA: Final = "kafka"


def check_kafka(settings: KafkaSettings | None, is_named: bool, within_s: float) -> list[Finding]:
    """Whether Kafka answers and has the pipeline's topics; ``settings`` is None if its client is not installed.

    Raises:
        UsageError: an option unknown to librdkafka.
    """
    unreachable = Severity.BAD if is_named else Severity.NOTE
    if settings is None:
        found = "Kafka's client is not installed"
        return [Finding(check=KAFKA, severity=unreachable, found=found, remedy="pip install 'volspike[kafka]'")]
    from volspike.streams.clients import cluster_metadata  # noqa: PLC0415  importing the package needs the client

    facts: dict[str, Fact] = {"servers": settings.bootstrap_servers}
    try:
        cluster = cluster_metadata(settings, within_s)
    except StreamError as error:
        found = str(error).partition(";")[0] + ("" if is_named else "; only needed if you use it")
        remedy = "`docker compose -f docker/compose.yaml up -d kafka`, or name other brokers with --bootstrap-servers"
        return [Finding(check=KAFKA, severity=unreachable, found=found, remedy=remedy, facts=facts)]
    missing = [topic for topic in _topics(settings) if topic not in cluster.topics]
    brokers = len(cluster.brokers)
    facts |= {"brokers": brokers, "missing_topics": " ".join(missing)}
    found = f"{settings.bootstrap_servers} answers with {brokers} broker{'' if brokers == 1 else 's'}"
    if missing:
        found, remedy = f"{found}, but lacks the topics {', '.join(missing)}", "`volspike topics create`"
        return [Finding(check=KAFKA, severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]
    return [Finding(check=KAFKA, severity=Severity.FINE, found=f"{found} and all topics", facts=facts)]


def _topics(settings: KafkaSettings) -> tuple[str, ...]:
    return (
        settings.topic_raw,
        settings.topic_features,
        settings.topic_predictions,
        settings.topic_dead,
        settings.topic_state,
    )


_SHOWN_ALERTS: Final = 5


async def check_api(url: str, is_named: bool, within_s: float) -> list[Finding]:
    """Whether volspike serves at ``url`` and is ready."""
    answer = await _request("api", url, "/health/ready", within_s)
    if isinstance(answer, str):
        remedy = "start one with `volspike up` or `volspike serve`"
        return [_unreachable("api", answer, is_named, remedy, url)]
    if answer.status_code == 200:
        return [_fine("api", f"{url} is ready", url)]
    found = f"{url} is not ready (status {answer.status_code}): {_shortened(answer.text)}"
    remedy = "see its log and the model check; name a model with --model or MODEL_PATH"
    return [Finding(check="api", severity=Severity.BAD, found=found, remedy=remedy, facts={"url": url})]


async def check_mlflow(uri: str, is_named: bool, within_s: float) -> list[Finding]:
    """Whether training runs can be tracked at ``uri``: a healthy server or an existing database file."""
    shown = masked(uri)
    if (file := database_file(uri)) is not None:
        return [_database(file, shown)]
    if is_invalid_url(uri):
        return [_fine("mlflow", f"{shown} is a database; training runs connect to it directly", shown)]
    answer = await _request("mlflow", uri, "/health", within_s)
    if not isinstance(answer, str) and answer.status_code == 200:
        return [_fine("mlflow", f"{shown} is healthy", shown)]
    found = answer if isinstance(answer, str) else f"{shown}: status {answer.status_code}"
    remedy = "`docker compose -f docker/compose.yaml up -d mlflow`, or track in a file: --mlflow-uri sqlite:///mlruns/mlflow.db"
    return [_unreachable("mlflow", masked(found), is_named, remedy, shown)]


async def check_prometheus(url: str, is_named: bool, within_s: float) -> list[Finding]:
    """Whether Prometheus is ready at ``url``, and which of its alerts fire."""
    answer = await _request("prometheus", url, "/-/ready", within_s)
    if isinstance(answer, str) or answer.status_code != 200:
        found = answer if isinstance(answer, str) else f"{url}: status {answer.status_code}"
        return [
            _unreachable("prometheus", found, is_named, "`docker compose -f docker/compose.yaml up -d prometheus`", url)
        ]
    alerts = await fetch(f"{url.rstrip('/')}/api/v1/alerts", within_s)
    firing = [] if isinstance(alerts, str) else _firing(alerts)
    if not firing:
        return [_fine("prometheus", f"{url} is ready, no alert is firing", url)]
    found = f"{url} is ready; firing: {', '.join(firing[:_SHOWN_ALERTS])}"
    remedy = "look the alerts up in docs/runbook.md"
    facts: dict[str, Fact] = {"url": url, "firing": len(firing)}
    return [Finding(check="prometheus", severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]


async def _request(check: str, url: str, path: str, within_s: float) -> httpx.Response | str:
    if is_invalid_url(url):
        return f"{url!r} is not a valid address of {check}; it must begin with http:// or https://"
    answer = await fetch(url.rstrip("/") + path, within_s)
    return f"{url}: {answer}" if isinstance(answer, str) else answer


def _database(file: str, shown: str) -> Finding:
    if Path(file).is_file():
        return _fine("mlflow", f"{shown} exists", shown)
    found = f"{shown} does not exist yet"
    remedy = "no action needed: the first `volspike train --mlflow-uri` creates it"
    return Finding(check="mlflow", severity=Severity.NOTE, found=found, remedy=remedy, facts={"url": shown})


def _firing(answer: httpx.Response) -> list[str]:
    try:
        body: Any = msgspec.json.decode(answer.content)
        alerts = body["data"]["alerts"]
        names = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    except (msgspec.DecodeError, KeyError, TypeError):
        return []
    return sorted(names)


def _unreachable(check: str, found: str, is_named: bool, remedy: str, url: str) -> Finding:
    """A server that does not answer: bad if the user named its address, otherwise a note."""
    if is_named:
        return Finding(check=check, severity=Severity.BAD, found=found, remedy=remedy, facts={"url": url})
    found = f"{found}; only needed if you use it"
    return Finding(check=check, severity=Severity.NOTE, found=found, remedy=remedy, facts={"url": url})


def _fine(check: str, found: str, url: str) -> Finding:
    return Finding(check=check, severity=Severity.FINE, found=found, facts={"url": url})


def _shortened(text: str) -> str:
    return " ".join(text.split())[:200]


async def check_feeds(feeds: Sequence[FeedSettings], within_s: float) -> list[Finding]:
    """Listens to each exchange as ``volspike up`` would, until every product has sent a tick or time is up.

    Raises:
        UsageError: a URL is not that of a websocket.
    """
    found = await asyncio.gather(*(_check_feed(settings, within_s) for settings in feeds))
    return [finding for findings in found for finding in findings]


async def _check_feed(settings: FeedSettings, within_s: float) -> list[Finding]:
    url = all_protocols()[settings.protocol].address(settings)
    address = parse_address(url)
    try:
        proxy_for(address)
    except UsageError as error:
        remedy = "install the package or change the variables, then check again"
        return [_feed_finding(Severity.BAD, str(error), remedy, {"url": url})]
    async with FeedSession(settings) as session:
        progress = _FeedProgress(settings)
        try:
            async with asyncio.timeout(within_s):
                await progress.listen(session)
        except TimeoutError:
            return [progress.finding(session.url, within_s)]
        return [progress.finding(session.url, within_s)]


class _FeedProgress:
    """The progress of a feed session: connected, refused, and which products have sent a tick."""

    def __init__(self, settings: FeedSettings) -> None:
        self._missing = set(settings.products)
        self._variable = f"{settings.protocol.upper().replace('-', '_')}_WS_URL"
        self._began = time.monotonic()
        self._first_tick_s: float | None = None
        self._is_connected = False
        self._reason = "no answer"
        self._refused = ""

    async def listen(self, session: FeedSession) -> None:
        """Receives events until every product has sent a tick or the exchange refuses."""
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
        """The finding from what was received."""
        facts: dict[str, Fact] = {"url": url, "first_tick_s": self._first_tick_s}
        if self._refused:
            found = f"{url} refuses the subscription: {self._refused}"
            return _feed_finding(Severity.BAD, found, "name products that it lists, as in --pair BTC-USD", facts)
        if not self._is_connected:
            found = f"{url} cannot be reached within {within_s:g} s: {self._reason}"
            remedy = (
                f"check the network, the proxy and {self._variable}; "
                "`volspike up --source simulator` runs without an exchange"
            )
            return _feed_finding(Severity.BAD, found, remedy, facts)
        if self._missing:
            found = f"{url} answers but sent no tick of {', '.join(sorted(self._missing))} within {within_s:g} s"
            return _feed_finding(Severity.WARNING, found, "try a longer --timeout; check --pair", facts)
        return _feed_finding(Severity.FINE, f"{url} answers, first tick after {self._first_tick_s:.2f} s", "", facts)


def _feed_finding(severity: Severity, found: str, remedy: str, facts: dict[str, Fact]) -> Finding:
    return Finding(check="feed", severity=severity, found=found, remedy=remedy, facts=facts)


CLOCK: Final = "clock"
NOTICED_S: Final = 0.5
"""Beyond this skew, displayed latency measures the clock rather than the network."""
WRONG_S: Final = 5.0
"""Beyond this skew, a healthy feed looks stale or seems to come from the future."""

_SET_CLOCK: Final = "synchronise the clock by NTP (chrony, systemd-timesyncd), then check again"


class Skew(NamedTuple):
    """Our clock minus the exchange's, and the uncertainty, both in seconds."""

    seconds: float
    uncertainty: float


class _ServerTime(msgspec.Struct):
    iso: str


async def check_clock(rest: str, within_s: float) -> list[Finding]:
    """Compares the clock with ``rest``/time, or to the second with the Date header of the response.

    Raises:
        UsageError: ``rest`` is not the URL of a web server.
    """
    check_rest_url(rest)
    url = f"{rest.rstrip('/')}/time"
    sent = time.time_ns()
    answer = await fetch(url, within_s)
    if isinstance(answer, str):
        remedy = "check the network, the proxy and COINBASE_REST_URL; `volspike backfill` needs this address too"
        found = f"not compared: {url}: {answer}"
        return [Finding(check=CLOCK, severity=Severity.WARNING, found=found, remedy=remedy, facts={"url": url})]
    skew = skew_of(answer, sent, time.time_ns())
    if skew is None:
        found = f"not compared: {url} states no time (status {answer.status_code})"
        remedy = "name the exchange's REST address with --rest-url or COINBASE_REST_URL"
        return [Finding(check=CLOCK, severity=Severity.WARNING, found=found, remedy=remedy, facts={"url": url})]
    return [clock_finding(skew, url)]


def skew_of(answer: httpx.Response, sent: int, received: int) -> Skew | None:
    """The skew from the response to a request sent and received at the given times (ns UTC of our clock).

    The exchange reads its clock somewhere in between, so half of that time is the uncertainty.
    """
    half = (received - sent) / 2 / SECOND_NS
    middle = (sent + received) // 2
    theirs = _server_time(answer.content)
    if theirs is not None:
        return Skew((middle - theirs) / SECOND_NS, half)
    date = answer.headers.get("date", "")
    try:
        second = round(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
    return Skew((middle - second * SECOND_NS) / SECOND_NS - 0.5, half + 0.5)


def clock_finding(skew: Skew, url: str) -> Finding:
    """The finding for a skew; only what exceeds its uncertainty counts."""
    certain = max(0.0, abs(skew.seconds) - skew.uncertainty)
    way = "ahead of" if skew.seconds > 0 else "behind"
    found = f"{abs(skew.seconds):.3f} s {way} the exchange's, ± {skew.uncertainty:.3f} s"
    facts: dict[str, Fact] = {"url": url, "skew_s": skew.seconds, "uncertainty_s": skew.uncertainty}
    if certain > WRONG_S:
        severity = Severity.BAD
    elif certain > NOTICED_S:
        severity = Severity.WARNING
    else:
        return Finding(check=CLOCK, severity=Severity.FINE, found=found, facts=facts)
    return Finding(check=CLOCK, severity=severity, found=found, remedy=_SET_CLOCK, facts=facts)


def _server_time(body: bytes) -> int | None:
    try:
        return parse_time(msgspec.json.decode(body, type=_ServerTime).iso)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None


AGE_DAYS: Final = 10
"""The age of the file that is requested; every venue has published it by then."""


class HistoryAddress(NamedTuple):
    """An address to check: the source, the kind of its files, and whether it is a file or pages over REST."""

    source: str
    files: str
    url: str
    is_file: bool


def history_addresses(today: date, base_url: str | None = None) -> Iterator[HistoryAddress]:
    """One address for each layout of the table, with the example product of its source.

    ``base_url`` replaces the address of every source, as that of a mirror does.
    """
    day = today - timedelta(days=AGE_DAYS)
    month = (day.replace(day=1) - timedelta(days=1)).replace(day=1)
    for archive in ARCHIVES.values():
        product_id = source_product(archive.name, archive.example, archive.example)
        for layout in archive.layouts:
            first = month if layout.is_monthly else day.replace(day=1) if archive.key_variable else day
            path = ArchiveFile(archive, layout, product_id, first, first + timedelta(days=1)).path
            period = "monthly" if layout.is_monthly else "daily"
            yield HistoryAddress(archive.name, f"{period} {layout.kind}", (base_url or archive.url) + path, True)
    for venue in PAGED_VENUES.values():
        path = venue.path.format(product=venue.example)
        yield HistoryAddress(venue.name, "pages of trades", (base_url or venue.url) + path, False)


async def check_history(today: date, base_url: str | None, within_s: float) -> list[Finding]:
    """One finding for each address, by HEAD requests at the same time.

    Raises:
        UsageError: ``base_url`` is no address of http.
    """
    base = None if base_url is None else checked_url(base_url)
    addresses = list(history_addresses(today, base))
    return list(await asyncio.gather(*(_check_address(address, within_s) for address in addresses)))


async def _check_address(address: HistoryAddress, within_s: float) -> Finding:
    answer = await fetch(address.url, within_s, "HEAD")
    facts: dict[str, Fact] = {"url": address.url}
    if isinstance(answer, str):
        remedy = "check the network and the proxy, then try again; --base-url names a mirror"
        return _archive_finding(address, Severity.BAD, f"does not answer ({answer})", remedy, facts)
    facts["status"] = answer.status_code
    # REST servers may refuse HEAD requests, which shows that the address is right
    if answer.status_code == HTTPStatus.OK or (not address.is_file and answer.status_code in {400, 405}):
        size = answer.headers.get("content-length", "")
        if address.is_file and size.isdecimal():
            facts["bytes"] = int(size)
            return _archive_finding(address, Severity.FINE, f"answers, {int(size) / 1e6:,.1f} MB", "", facts)
        return _archive_finding(address, Severity.FINE, "answers", "", facts)
    found = f"answers {answer.status_code} {answer.reason_phrase}"
    remedy = (
        "the venue may have changed its layout or delayed the file: try again tomorrow, then update volspike"
        if answer.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
        else "the venue refuses this machine: check its terms and your network, or name a mirror with --base-url"
    )
    return _archive_finding(address, Severity.BAD, found, remedy, facts)


def _archive_finding(
    address: HistoryAddress, severity: Severity, found: str, remedy: str, facts: dict[str, Fact]
) -> Finding:
    text = f"{address.files}: {address.url} {found}"
    return Finding(check=address.source, severity=severity, found=text, remedy=remedy, facts=facts)
