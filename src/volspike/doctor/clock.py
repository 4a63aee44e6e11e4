"""How far this machine's clock is from the exchange's: ticks carry theirs, latency and the ledger of gaps ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

import httpx
import msgspec

from volspike.doctor.finding import Fact, Finding, Severity
from volspike.doctor.web import ask, is_refused_address
from volspike.errors import UsageError
from volspike.market import SECOND_NS, nanoseconds

CHECK: Final = "clock"
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
        return [Finding(check=CHECK, severity=Severity.WARNING, found=found, remedy=remedy, facts={"url": url})]
    skew = skew_of(answer, asked, clock())
    if skew is None:
        found = f"not compared: {url} tells no time (status {answer.status_code})"
        remedy = "name the exchange's REST address with --rest-url or COINBASE_REST_URL"
        return [Finding(check=CHECK, severity=Severity.WARNING, found=found, remedy=remedy, facts={"url": url})]
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
        return Finding(check=CHECK, severity=Severity.FINE, found=found, facts=facts)
    return Finding(check=CHECK, severity=severity, found=found, remedy=_SET_CLOCK, facts=facts)


def _told(body: bytes) -> int | None:
    try:
        return nanoseconds(msgspec.json.decode(body, type=_Told).iso)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None
