"""Quiet hours and snoozes: times at which alerts are recorded and shown, but not sent to receivers.

``SendingRules`` decides for each alert. An alert whose opening was not sent has no closing message either. Quiet hours
let the closing of an alert through that was sent before; a snooze lets nothing through. The first moment outside quiet
hours has one summary of the alerts that they held back.

Snoozes and held alerts survive a restart in a small JSON file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog

from volspike.errors import UsageError
from volspike.market import SECOND_NS, Mode, format_time
from volspike.market.time import MILLISECOND_NS
from volspike.stores import rename_damaged

if TYPE_CHECKING:
    from volspike.monitoring.alerts import Alert

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 1440
MOST_SNOOZE_MINUTES: Final = 1440

OPEN_ALERTS: Final = 1024
"""How many alerts that were not sent are remembered until they close."""

_WINDOW: Final = re.compile(r"(?:([a-z,-]+)\s+)?(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})(?:\s+(\S+))?", re.IGNORECASE)
_FORM: Final = "use a form such as 22:00-07:00, 22:00-07:00 Europe/Berlin or mon-fri 22:00-07:00 Europe/Berlin"
_LAST_MS: Final = 4_102_444_800_000
"""The year 2100, so that every time of a file can be shown."""

_TimeNs: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_LAST_MS * MILLISECOND_NS)]
_CHAINED: Final = 16
"""How many overlapping windows ``quiet_until`` follows; a week of windows without a break has no end."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A daily window of local time in ``zone``, from ``start`` to before ``end``, in minutes after midnight.

    A window whose end is not after its start ends on the next day. ``days`` are those on which it begins, 0 is Monday.
    Where the clock is set back, the window includes both passes of the repeated hour; a start or end in the hour that
    the clock skips is the moment of the change.
    """

    start: int
    end: int
    zone: ZoneInfo
    days: frozenset[int] = frozenset(range(7))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The window of a text: weekdays (default: all), hours, and a time zone (default: UTC).

        >>> QuietHours.parse("fri-mon 22:00-07:00 Europe/Berlin").days == {4, 5, 6, 0}
        True

        Raises:
            UsageError: it is no such text.
        """
        found = _WINDOW.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"--quiet-hours {text!r}: {_FORM}")
        days, start, end = found[1], _minutes(text, found[2], found[3]), _minutes(text, found[4], found[5])
        if start in {end, DAY_MINUTES}:
            raise UsageError(f"--quiet-hours {text!r}: start and end must differ; a complete day is 00:00-24:00")
        try:
            zone = ZoneInfo(found[6] or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(
                f"--quiet-hours {text!r}: no time zone {found[6]!r}; use a name such as Europe/Berlin or UTC"
            ) from error
        return cls(start, end, zone, frozenset(range(7)) if days is None else _days(text, days))

    def end_at(self, second: int) -> int | None:
        """The end (Unix second) of the window that contains ``second``; None outside the window."""
        today = datetime.fromtimestamp(second, self.zone).date()
        for day in (today - timedelta(days=1), today):
            if day.weekday() in self.days:
                start, end = self._span(day)
                if start <= second < end:
                    return end
        return None

    def _span(self, day: date) -> tuple[int, int]:
        """Start and end (Unix seconds) of the window that begins on ``day``."""
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001  local time, whose zone follows
        end = self.end if self.end > self.start else self.end + DAY_MINUTES
        return (
            _instant(midnight + timedelta(minutes=self.start), self.zone, is_end=False),
            _instant(midnight + timedelta(minutes=end), self.zone, is_end=True),
        )


def _minutes(text: str, hours: str, minutes: str) -> int:
    total = 60 * int(hours) + int(minutes)
    if int(minutes) > 59 or total > DAY_MINUTES:
        raise UsageError(f"--quiet-hours {text!r}: {hours}:{minutes} is no time of day; {_FORM}")
    return total


def _days(text: str, days: str) -> frozenset[int]:
    """The numbers of weekdays such as ``mon-fri`` or ``sat,sun``."""
    chosen: set[int] = set()
    for part in days.lower().split(","):
        first, separator, last = part.partition("-")
        if first not in DAYS or (separator and last not in DAYS):
            raise UsageError(f"--quiet-hours {text!r}: weekdays are {', '.join(DAYS)}, as mon-fri or sat,sun")
        begin = DAYS.index(first)
        length = (DAYS.index(last or first) - begin) % 7 + 1
        chosen.update((begin + step) % 7 for step in range(length))
    return frozenset(chosen)


def _instant(local: datetime, zone: ZoneInfo, *, is_end: bool) -> int:
    """The Unix second at which a clock in ``zone`` shows ``local``: of two, the last for an end, otherwise the first.

    A time that the clock skips is the second of the change.
    """
    first, second = (int(local.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if first <= second:
        return second if is_end else first
    before, after = second, first  # of a skipped time, fold 1 lies before the change
    offset = datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


class Suppression(StrEnum):
    """The reason for which an alert is not sent."""

    QUIET_HOURS = "quiet_hours"
    SNOOZED = "snoozed"


class Snooze(msgspec.Struct, frozen=True):
    """No alert of ``product`` (None: of any product) is sent before ``until``, in ms UTC."""

    product: str | None
    until: Annotated[int, msgspec.Meta(ge=0, le=_LAST_MS)]


class HeldAlerts(msgspec.Struct, kw_only=True):
    """The alerts that quiet hours held back: how many of each product, the highest probability, first and last (ns)."""

    products: Annotated[dict[str, int], msgspec.Meta(min_length=1)]
    peak_probability: float
    peak_product: str
    first: _TimeNs
    last: _TimeNs
    mode: Mode

    def add(self, alert: Alert) -> None:
        """Counts an alert that opened; one that closed may raise the highest probability."""
        if alert.is_open:
            self.products[alert.product] = self.products.get(alert.product, 0) + 1
            self.last = alert.time_ns
        if alert.probability > self.peak_probability:
            self.peak_probability, self.peak_product = alert.probability, alert.product


class QuietSummary(msgspec.Struct, frozen=True):
    """The message at the end of quiet hours."""

    held: HeldAlerts

    @property
    def id(self) -> str:
        """An id for the log."""
        return f"quiet-hours-{self.held.first}"

    @property
    def title(self) -> str:
        """One line, for a phone."""
        number = sum(self.held.products.values())
        mark = f"{self.held.mode.label} " if self.held.mode.label else ""
        return f"{mark}{number} alert{'' if number == 1 else 's'} during quiet hours"

    @property
    def body(self) -> str:
        """One line with the alerts of each product, the highest probability, and the times of the first and last."""
        held = self.held
        products = ", ".join(f"{product} {number}" for product, number in sorted(held.products.items()))
        text = f"not sent during quiet hours: {products}; highest probability {held.peak_probability:.3f}"
        text += f" ({held.peak_product}); first {format_time(held.first)}, last {format_time(held.last)}"
        return text + (f", {held.mode.label}" if held.mode.label else "")


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file."""

    snoozes: list[Snooze]
    held: HeldAlerts | None = None


class SendingRules:
    """Decides which alerts are sent; for any thread.

    Args:
        quiet_hours: their windows; the clock of this machine decides, also for a replayed tape.
        file: keeps snoozes and held alerts over a restart; None keeps them in memory.
        clock: ns UTC.
    """

    def __init__(
        self, quiet_hours: Sequence[QuietHours] = (), file: Path | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.quiet_hours = tuple(quiet_hours)
        self.suppressed = dict.fromkeys(Suppression, 0)
        """Alerts that were not sent, by reason."""
        self._file, self._clock = file, clock
        self._lock, self._file_lock = Lock(), Lock()
        self._unsent: dict[str, Suppression] = {}
        self._snoozes: dict[str | None, int] = {}
        self._held: HeldAlerts | None = None
        self._is_saved = True
        self._load()

    def suppress(self, alert: Alert) -> Suppression | None:
        """Record an alert that opens or closes now; the reason for which it is not sent, None if it is sent."""
        with self._lock:
            if alert.is_open:
                reason = self._reason(alert.product)
            else:
                is_snoozed = self._until(alert.product) is not None
                reason = self._unsent.pop(alert.id, Suppression.SNOOZED if is_snoozed else None)
            if reason is None:
                return None
            if alert.is_open:
                self.suppressed[reason] += 1
                self._unsent[alert.id] = reason
                if len(self._unsent) > OPEN_ALERTS:
                    del self._unsent[next(iter(self._unsent))]
            if reason is Suppression.QUIET_HOURS:
                self._hold(alert)
            return reason

    def _reason(self, product: str) -> Suppression | None:
        if self._until(product) is not None:
            return Suppression.SNOOZED
        return None if self.quiet_until() is None else Suppression.QUIET_HOURS

    def _hold(self, alert: Alert) -> None:
        if self._held is not None and self._held.mode is not alert.mode:
            self._report_lost(self._held)  # an earlier run's: one summary never mixes real and simulated alerts
            self._held = None
        if self._held is None:
            if not alert.is_open:  # its opening is in the summary that was sent
                return
            self._held = HeldAlerts(
                products={},
                peak_probability=alert.probability,
                peak_product=alert.product,
                first=alert.time_ns,
                last=alert.time_ns,
                mode=alert.mode,
            )
        self._held.add(alert)
        self._is_saved = False

    def quiet_until(self) -> int | None:
        """The end (Unix second) of the present quiet hours; None outside them. Windows that meet count as one."""
        end, second = None, self._clock() // SECOND_NS
        for _ in range(_CHAINED):
            ends = [found for window in self.quiet_hours if (found := window.end_at(second)) is not None]
            if not ends:
                break
            end = second = max(ends)
        return end

    def seconds_left(self) -> float | None:
        """Seconds until the present quiet hours end; None outside them."""
        end = self.quiet_until()
        return None if end is None else max(0.0, end - self._clock() / SECOND_NS)

    def take_summary(self) -> QuietSummary | None:
        """The summary of the held alerts, once; None if there are none, in quiet hours, and while all are snoozed."""
        with self._lock:
            held = self._held
            if held is None or self._until(None) is not None or self.quiet_until() is not None:
                return None
            self._held, self._is_saved = None, False
            return QuietSummary(held)

    @property
    def has_summaries(self) -> bool:
        """Whether there may be a summary to send: there are quiet hours, or alerts held before a restart."""
        return bool(self.quiet_hours) or self._held is not None

    def snooze(self, product: str | None, minutes: int) -> None:
        """Sends no alert of a product (None: of any) for ``minutes`` from now; replaces its present snooze."""
        with self._lock:
            self._snoozes[product] = self._clock() // MILLISECOND_NS + 60_000 * minutes
            self._is_saved = False

    def resume(self, product: str | None) -> None:
        """Ends the snooze of a product, or for None the one of all products; those of single products stay."""
        with self._lock:
            self._is_saved &= self._snoozes.pop(product, None) is None

    def snoozes(self) -> list[Snooze]:
        """The present snoozes: that of all products first, then by product."""
        with self._lock:
            return self._present()

    def _present(self) -> list[Snooze]:
        now = self._clock() // MILLISECOND_NS
        present = [Snooze(product, until) for product, until in self._snoozes.items() if now < until]
        return sorted(present, key=lambda snooze: (snooze.product is not None, snooze.product or ""))

    def snoozed_until(self, product: str) -> int | None:
        """The time (ms UTC) until which no alert of a product is sent; None if it is not snoozed."""
        with self._lock:
            return self._until(product)

    def _until(self, product: str | None) -> int | None:
        if not self._snoozes:
            return None
        until = max(self._snoozes.get(None, 0), self._snoozes.get(product, 0))
        return until if self._clock() // MILLISECOND_NS < until else None

    def save(self) -> None:
        """Replaces the file if anything has changed; a disk that refuses it is logged and stops nothing."""
        with self._file_lock:
            with self._lock:
                if self._is_saved or self._file is None:
                    return
                content = msgspec.json.encode(_State(self._present(), self._held))
                self._is_saved = True
            part = self._file.with_name(self._file.name + ".part")
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(content)
                part.replace(self._file)
            except OSError as error:
                self._is_saved = False
                _log.warning("snoozes_not_saved", file=str(self._file), reason=error.strerror or str(error))

    def close(self) -> None:
        """Saves what has changed; without a file, the alerts that wait for the summary are reported as lost."""
        self.save()
        if self._held is not None and self._file is None:
            self._report_lost(self._held)

    def _report_lost(self, held: HeldAlerts) -> None:
        _log.warning("quiet_summary_lost", summary=QuietSummary(held).body)

    def _load(self) -> None:
        if self._file is None or not self._file.is_file():
            return
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=_State)
        except OSError as error:
            _log.warning("snoozes_not_restored", file=str(self._file), reason=error.strerror or str(error))
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            rename_damaged(self._file, str(error))
            return
        self._snoozes = {snooze.product: snooze.until for snooze in state.snoozes}
        self._held = state.held
        for snooze in self._present():
            until = format_time(snooze.until * MILLISECOND_NS)
            _log.warning("alerts_snoozed", product=snooze.product or "all products", until=until)
