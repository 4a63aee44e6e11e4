"""Whether Kafka answers, and has the pipeline's topics.

The servers around volspike that speak HTTP: its own API, MLflow, Prometheus.

Whether the exchange answers, takes the subscription, and tells ticks of the products asked for.

How far this machine's clock is from the exchange's: ticks carry theirs, latency and the ledger of gaps ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import msgspec

from volspike.config import FeedSettings
from volspike.doctor.finding import Fact, Finding, Severity, ask, is_refused_address
from volspike.errors import StreamError, UsageError
from volspike.feeds.events import FeedError, FeedFrame, FeedState
from volspike.feeds.session import FeedSession
from volspike.market import SECOND_NS, parse_time
from volspike.training.tracking import database_file, masked

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings

CHECK: Final = "kafka"


def look_at_kafka(settings: KafkaSettings | None, is_asked: bool, within_s: float) -> list[Finding]:
    """Asks the brokers for their topics; without ``settings`` there is no client to ask with.

    Raises:
        UsageError: an option is not one of librdkafka's.
    """
    silence = Severity.BAD if is_asked else Severity.NOTE
    if settings is None:
        found = "its client is not installed"
        return [Finding(check=CHECK, severity=silence, found=found, remedy="pip install 'volspike[kafka]'")]
    from volspike.streams.clients import metadata_of  # noqa: PLC0415  importing the package needs the client

    facts: dict[str, Fact] = {"servers": settings.bootstrap_servers}
    try:
        cluster = metadata_of(settings, within_s)
    except StreamError as error:
        found = str(error).partition(";")[0] + ("" if is_asked else "; not needed unless you use it")
        remedy = "`docker compose -f docker/compose.yaml up -d kafka`, or name brokers with --bootstrap-servers"
        return [Finding(check=CHECK, severity=silence, found=found, remedy=remedy, facts=facts)]
    missing = [topic for topic in _topics(settings) if topic not in cluster.topics]
    brokers = len(cluster.brokers)
    facts |= {"brokers": brokers, "missing_topics": " ".join(missing)}
    found = f"{settings.bootstrap_servers} answers with {brokers} broker{'' if brokers == 1 else 's'}"
    if missing:
        found, remedy = f"{found}, without topics {', '.join(missing)}", "`volspike topics create`"
        return [Finding(check=CHECK, severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]
    return [Finding(check=CHECK, severity=Severity.FINE, found=f"{found} and all topics", facts=facts)]


def _topics(settings: KafkaSettings) -> tuple[str, ...]:
    return (
        settings.topic_raw,
        settings.topic_features,
        settings.topic_predictions,
        settings.topic_dead,
        settings.topic_state,
    )


_SHOWN_ALERTS: Final = 5


async def look_at_api(url: str, is_asked: bool, within_s: float) -> list[Finding]:
    """Whether a volspike serves at ``url`` and is ready."""
    answer = await _answer("api", url, "/health/ready", within_s)
    if isinstance(answer, str):
        remedy = "start one with `volspike up` or `volspike serve`"
        return [_silent("api", answer, is_asked, remedy, url)]
    if answer.status_code == 200:
        return [_fine("api", f"{url} is ready", url)]
    found = f"{url} is not ready (status {answer.status_code}): {_shortened(answer.text)}"
    remedy = "see its log and the finding on the model; name a model with --model or MODEL_PATH"
    return [Finding(check="api", severity=Severity.BAD, found=found, remedy=remedy, facts={"url": url})]


async def look_at_mlflow(uri: str, is_asked: bool, within_s: float) -> list[Finding]:
    """Whether training runs can be tracked at ``uri``: a server that is healthy, or a database file that is there."""
    shown = masked(uri)
    if (file := database_file(uri)) is not None:
        return [_database(file, shown)]
    if is_refused_address(uri):
        return [_fine("mlflow", f"{shown} is a database; a training run connects to it", shown)]
    answer = await _answer("mlflow", uri, "/health", within_s)
    if not isinstance(answer, str) and answer.status_code == 200:
        return [_fine("mlflow", f"{shown} is healthy", shown)]
    told = answer if isinstance(answer, str) else f"{shown}: status {answer.status_code}"
    remedy = "`docker compose -f docker/compose.yaml up -d mlflow`, or track into a file: --mlflow-uri sqlite:///mlruns/mlflow.db"
    return [_silent("mlflow", masked(told), is_asked, remedy, shown)]


async def look_at_prometheus(url: str, is_asked: bool, within_s: float) -> list[Finding]:
    """Whether Prometheus is ready at ``url``, and which of its alerts fire."""
    answer = await _answer("prometheus", url, "/-/ready", within_s)
    if isinstance(answer, str) or answer.status_code != 200:
        told = answer if isinstance(answer, str) else f"{url}: status {answer.status_code}"
        return [_silent("prometheus", told, is_asked, "`docker compose -f docker/compose.yaml up -d prometheus`", url)]
    alerts = await ask(f"{url.rstrip('/')}/api/v1/alerts", within_s)
    firing = [] if isinstance(alerts, str) else _firing(alerts)
    if not firing:
        return [_fine("prometheus", f"{url} is ready, no alert fires", url)]
    found = f"{url} is ready; firing: {', '.join(firing[:_SHOWN_ALERTS])}"
    remedy = "each alert has its section in docs/runbook.md"
    facts: dict[str, Fact] = {"url": url, "firing": len(firing)}
    return [Finding(check="prometheus", severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]


async def _answer(check: str, url: str, path: str, within_s: float) -> httpx.Response | str:
    if is_refused_address(url):
        return f"{url!r} is no address of {check}; it begins with http:// or https://"
    answer = await ask(url.rstrip("/") + path, within_s)
    return f"{url}: {answer}" if isinstance(answer, str) else answer


def _database(file: str, shown: str) -> Finding:
    if Path(file).is_file():
        return _fine("mlflow", f"{shown} is there", shown)
    found = f"{shown} is not there yet"
    remedy = "nothing to do: the first `volspike train --mlflow-uri` makes it"
    return Finding(check="mlflow", severity=Severity.NOTE, found=found, remedy=remedy, facts={"url": shown})


def _firing(answer: httpx.Response) -> list[str]:
    try:
        told: Any = msgspec.json.decode(answer.content)
        alerts = told["data"]["alerts"]
        names = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    except (msgspec.DecodeError, KeyError, TypeError):
        return []
    return sorted(names)


def _silent(check: str, told: str, is_asked: bool, remedy: str, url: str) -> Finding:
    """Nobody answers: bad where an address was named, else only worth knowing."""
    if is_asked:
        return Finding(check=check, severity=Severity.BAD, found=told, remedy=remedy, facts={"url": url})
    found = f"{told}; not needed unless you use it"
    return Finding(check=check, severity=Severity.NOTE, found=found, remedy=remedy, facts={"url": url})


def _fine(check: str, found: str, url: str) -> Finding:
    return Finding(check=check, severity=Severity.FINE, found=found, facts={"url": url})


def _shortened(text: str) -> str:
    return " ".join(text.split())[:200]


CHECK_FEED = "feed"


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
    return Finding(check=CHECK_FEED, severity=severity, found=found, remedy=remedy, facts=facts)


CHECK_CLOCK: Final = "clock"
NOTICED_S: Final = 0.5
"""Beyond this, the latency that is shown is more clock than network."""
WRONG_S: Final = 5.0
"""Beyond this, a healthy feed looks stale, or comes from the future."""

_SET_CLOCK: Final = "let the system keep its time by NTP (chrony, systemd-timesyncd), then look again"


class Skew(NamedTuple):
    """Ours minus theirs, and how far that may be off, both in seconds."""

    seconds: float
    uncertainty: float


class _Told(msgspec.Struct):
    iso: str


async def look_at_clock(rest: str, within_s: float, clock: Callable[[], int] = time.time_ns) -> list[Finding]:
    """Asks ``rest``/time; where that tells no time, the answer's Date header does, to the second.

    Raises:
        UsageError: ``rest`` is no address of the web.
    """
    if is_refused_address(rest):
        raise UsageError(f"{rest!r} is no address of the exchange; it begins with http:// or https://")
    url = f"{rest.rstrip('/')}/time"
    asked = clock()
    answer = await ask(url, within_s)
    if isinstance(answer, str):
        remedy = "look at the network, a proxy and COINBASE_REST_URL; `volspike backfill` needs that address, too"
        found = f"not compared: {url}: {answer}"
        return [Finding(check=CHECK_CLOCK, severity=Severity.WARNING, found=found, remedy=remedy, facts={"url": url})]
    skew = skew_of(answer, asked, clock())
    if skew is None:
        found = f"not compared: {url} tells no time (status {answer.status_code})"
        remedy = "name the exchange's REST address with --rest-url or COINBASE_REST_URL"
        return [Finding(check=CHECK_CLOCK, severity=Severity.WARNING, found=found, remedy=remedy, facts={"url": url})]
    return [judged(skew, url)]


def skew_of(answer: httpx.Response, asked: int, answered: int) -> Skew | None:
    """The skew by an answer to a question of ``asked`` that came at ``answered`` (ns UTC of our clock).

    The exchange's clock is read somewhere between the two, so that half of the way may be wrong.
    """
    half = (answered - asked) / 2 / SECOND_NS
    middle = (asked + answered) // 2
    theirs = _told(answer.content)
    if theirs is not None:
        return Skew((middle - theirs) / SECOND_NS, half)
    date = answer.headers.get("date", "")
    try:
        second = round(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
    return Skew((middle - second * SECOND_NS) / SECOND_NS - 0.5, half + 0.5)


def judged(skew: Skew, url: str) -> Finding:
    """The finding that a skew makes: only what lies beyond its uncertainty counts."""
    sure = max(0.0, abs(skew.seconds) - skew.uncertainty)
    way = "ahead of" if skew.seconds > 0 else "behind"
    found = f"{abs(skew.seconds):.3f} s {way} the exchange's, ± {skew.uncertainty:.3f} s"
    facts: dict[str, Fact] = {"url": url, "skew_s": skew.seconds, "uncertainty_s": skew.uncertainty}
    if sure > WRONG_S:
        severity = Severity.BAD
    elif sure > NOTICED_S:
        severity = Severity.WARNING
    else:
        return Finding(check=CHECK_CLOCK, severity=Severity.FINE, found=found, facts=facts)
    return Finding(check=CHECK_CLOCK, severity=severity, found=found, remedy=_SET_CLOCK, facts=facts)


def _told(body: bytes) -> int | None:
    try:
        return parse_time(msgspec.json.decode(body, type=_Told).iso)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None
