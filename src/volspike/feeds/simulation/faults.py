"""Faults of the simulated exchange, and a record of every frame and fault.

Every frame of a connection passes an ``Injector``, which may drop, delay, duplicate, reorder or damage it. It decides
when a frame is created, not when the socket takes it, so the same seed gives the same faults. The ``Record`` keeps the
newest frames and faults; tests compare a client's gaps with it.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
import numpy as np

from volspike.feeds.simulation.protocols import Outgoing, ServerProtocol
from volspike.market import SECOND_NS, format_time, parse_time

KEPT_BYTES = 1 << 16


class Fault(StrEnum):
    """A failure between the exchange and a client."""

    DROP = "drop"
    """A frame is lost, with its sequence number."""
    DELAY = "delay"
    """A frame and all later ones arrive late."""
    DUPLICATE = "duplicate"
    """A frame arrives twice."""
    REORDER = "reorder"
    """A frame arrives after its successor."""
    SKIP = "skip"
    """Sequence numbers are skipped without a loss; trade ids at venues that do not number their messages."""
    SILENCE = "silence"
    """No frame arrives for some seconds; those frames are lost, with their sequence numbers."""
    CLOSE = "close"
    """The connection ends, with or without a close frame."""
    MALFORMED = "malformed"
    """An additional frame that cannot be decoded."""
    DAMAGE = "damage"
    """A frame arrives damaged: truncated, or with a price that is none."""
    MISTIME = "mistime"
    """A frame arrives with other times of the exchange."""
    RESET = "reset"
    """The sequence numbers of a connection begin at 0 again, or its trade ids at 1."""
    UNKNOWN = "unknown"
    """An additional message of an unknown kind; numbered on Advanced Trade."""
    SNAPSHOT = "snapshot"
    """An unrequested snapshot of an order book, of megabytes; numbered on Advanced Trade."""
    SLOW_READER = "slow reader"
    """The exchange disconnected a client that read too slowly, as Coinbase does."""
    UNSENT = "unsent"
    """Frames were still unsent when the connection ended."""
    LIFETIME = "lifetime"
    """The exchange closed a connection at the end of its lifetime."""
    SHUTDOWN = "shutdown"
    """The exchange announced that it shuts down, where the protocol has such a notice; it closes some time later."""
    RULE = "rule"
    """The exchange disconnected a client that broke one of its rules, such as the number of messages a second."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One frame that was sent or lost (``is_lost``), in the order of sending.

    ``connection`` counts from 1 in the order of connecting, ``time`` is simulated (ns UTC), ``sequence`` is the
    frame's number or -1, ``data`` its first 64 KiB. ``original`` is the frame before it was damaged or mistimed, empty
    for every other. A frame in transit when a connection broke counts as sent.
    """

    connection: int
    time: int
    sequence: int
    data: bytes
    fault: Fault | None = None
    original: bytes = b""

    @property
    def is_lost(self) -> bool:
        """Whether it was never sent."""
        return self.fault in {Fault.DROP, Fault.SILENCE, Fault.UNSENT, Fault.CLOSE}


class Injected(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: the frame (``sequence``, or -1), and in ``detail`` its size, duration or close code."""

    connection: int
    time: int
    fault: Fault
    sequence: int = -1
    detail: str = ""


class Record:
    """The newest ``kept`` frames and faults, and counts of all of them."""

    def __init__(self, kept: int) -> None:
        self.sent: deque[Sent] = deque(maxlen=kept)
        self.injected: deque[Injected] = deque(maxlen=kept)
        self.faults: Counter[Fault] = Counter()
        self.frames = self.lost = 0

    def frame(
        self, connection: int, time: int, out: Outgoing, fault: Fault | None = None, original: bytes = b""
    ) -> None:
        """Add a frame; a lost one counts in ``lost``, not in ``frames``."""
        data = out.data if len(out.data) <= KEPT_BYTES else out.data[:KEPT_BYTES]
        sent = Sent(connection=connection, time=time, sequence=out.sequence, data=data, fault=fault, original=original)
        if fault is not None and sent.is_lost:
            self.lost += 1
        else:
            self.frames += 1
        self.sent.append(sent)

    def fault(self, connection: int, time: int, fault: Fault, sequence: int = -1, detail: str = "") -> None:
        """Add a fault."""
        self.faults[fault] += 1
        self.injected.append(Injected(connection=connection, time=time, fault=fault, sequence=sequence, detail=detail))


_Rate: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
_Code: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=4999)]

_BY_RATE = (
    Fault.DROP,
    Fault.DELAY,
    Fault.DUPLICATE,
    Fault.REORDER,
    Fault.SKIP,
    Fault.MALFORMED,
    Fault.UNKNOWN,
    Fault.DAMAGE,
    Fault.MISTIME,
)

BAD_PRICES: Mapping[str, bytes | None] = {
    "zero": b'"0"',
    "negative": b'"-1"',
    "nan": b'"NaN"',
    "bare nan": b"NaN",
    "huge": b'"1e400"',
    "empty": b'""',
    "null": b"null",
    "text": b'"dear"',
    "object": b"{}",
    "missing": None,
}
"""Ways to damage a price, and what replaces it; None removes it."""

DAMAGES: tuple[str, ...] = ("truncated", *BAD_PRICES)

_NUMBERS = frozenset({BAD_PRICES["zero"], BAD_PRICES["negative"], BAD_PRICES["huge"]})

_PRICE = re.compile(rb'(?:"(?:price|px|p|b|bid)":|\[\[)("[^"]*"|[0-9.]+),?')
"""The first price of a frame: a field of a trade or of best quotes, or the first level of a book."""
_TIME = re.compile(rb'"(timestamp|time|current_time|time_in|time_out)":"([^" ]+)"')
_EPOCH = re.compile(rb'("(?:E|T|ts|cts)":"?)([0-9]{13,16})\b')
_MILLISECOND_DIGITS = 13


def damage_frame(data: bytes, way: str) -> bytes:
    """The frame truncated, or with its first price damaged in one of ``DAMAGES``; without a price it is truncated."""
    if way == "truncated" or _PRICE.search(data) is None:
        return data[: len(data) // 2]
    return _PRICE.sub(lambda found: _damage_price(found, BAD_PRICES[way]), data, count=1)


def _damage_price(found: re.Match[bytes], bad: bytes | None) -> bytes:
    """The damaged price, without quotation marks where the protocol has numbers; the rest of a level is kept."""
    key, price = found[0][: found.start(1) - found.start()], found[1]
    if bad is None:
        return key if key.startswith(b"[") else b""
    if not price.startswith(b'"') and bad in _NUMBERS:
        bad = bad.strip(b'"')
    return key + bad + b","


def shift_times(data: bytes, seconds: float) -> bytes:
    """The frame with the exchange's times later, or earlier, by ``seconds``."""

    def shifted(match: re.Match[bytes]) -> bytes:
        time = parse_time(match[2].decode()) + round(seconds * SECOND_NS)
        return b'"' + match[1] + b'":"' + format_time(time).encode() + b'"'

    def shifted_epoch(match: re.Match[bytes]) -> bytes:
        unit = 1_000 if len(match[2]) == _MILLISECOND_DIGITS else 1_000_000
        return match[1] + b"%d" % (int(match[2]) + round(seconds * unit))

    return _EPOCH.sub(shifted_epoch, _TIME.sub(shifted, data))


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults that occur by themselves.

    Rates are per frame; at most one fault hits a frame, so the rates add up to at most 1. ``…_every_s`` and
    ``silence_s`` are simulated seconds, counted from connecting; 0 is never. ``mistime_s`` is the error of wrong times.
    ``delay_s`` is in seconds of the wall clock. A connection is closed with one of ``close_codes``; 0 closes it without
    a close frame.
    """

    drop: _Rate = 0.0
    delay: _Rate = 0.0
    delay_s: _Seconds = 0.2
    duplicate: _Rate = 0.0
    reorder: _Rate = 0.0
    skip: _Rate = 0.0
    skip_numbers: Annotated[int, msgspec.Meta(ge=1)] = 3
    malformed: _Rate = 0.0
    unknown: _Rate = 0.0
    damage: _Rate = 0.0
    mistime: _Rate = 0.0
    mistime_s: float = 299.0
    silence_every_s: _Seconds = 0.0
    silence_s: _Seconds = 15.0
    close_every_s: _Seconds = 0.0
    close_codes: Annotated[tuple[_Code, ...], msgspec.Meta(min_length=1)] = (1001,)
    snapshot_every_s: _Seconds = 0.0
    snapshot_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 28)] = 5_000_000

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of the faults that hit frames, in the order of drawing."""
        return tuple(getattr(self, fault.value) for fault in _BY_RATE)


class Delay(NamedTuple):
    """A pause before everything that follows, in seconds of the wall clock."""

    seconds: float


class Close(NamedTuple):
    """The end of the connection; code 0 is without a close frame."""

    code: int
    reason: str = ""


Item: TypeAlias = bytes | Delay | Close
"""An item in the send queue of a connection."""


class Injector:
    """The faults of one connection; each method returns the items to send now."""

    def __init__(
        self,
        number: int,
        protocol: ServerProtocol,
        record: Record,
        faults: Callable[[], Faults],
        seed: int,
        opened: int,
    ) -> None:
        self.has_closed = False
        self._number = number
        self._protocol = protocol
        self._record = record
        self._faults = faults
        self._rng = np.random.default_rng([seed, number, 2])
        self._scheduled: deque[tuple[Fault, float | str]] = deque()
        self._held: Outgoing | None = None
        self._silent_until = opened
        self._clock_s = 0.0
        self._last = dict.fromkeys((Fault.SILENCE, Fault.CLOSE, Fault.SNAPSHOT), opened)

    def schedule(self, fault: Fault, times: int, amount: float | str = 0.0) -> None:
        """Apply ``fault`` to the next ``times`` frames."""
        self._scheduled.extend([(fault, amount)] * times)

    def pass_frame(self, out: Outgoing, now: int) -> list[Item]:
        """Pass one frame, with the fault that is scheduled or drawn for it."""
        if self.has_closed:
            self._record.frame(self._number, now, out, Fault.CLOSE)
            return []
        if now < self._silent_until:
            self._record.frame(self._number, now, out, Fault.SILENCE)
            return []
        if self._clock_s:
            out = Outgoing(out.sequence, shift_times(out.data, self._clock_s))
        fault, amount = self._scheduled.popleft() if self._scheduled else self._draw()
        if fault is None:
            return self._put(out, now, None)
        return self._apply(out, now, fault, amount)

    def periodic(self, product: str, now: int) -> list[Item]:
        """The periodic faults that are due; a snapshot is of ``product``."""
        faults = self._faults()
        items: list[Item] = []
        if self._is_due(Fault.SNAPSHOT, faults.snapshot_every_s, now):
            items += self.book(product, faults.snapshot_bytes, now)
        if self._is_due(Fault.SILENCE, faults.silence_every_s, now):
            items += self.silence(faults.silence_s, now)
        if self._is_due(Fault.CLOSE, faults.close_every_s, now):
            codes = faults.close_codes
            items += self.close(codes[int(self._rng.integers(len(codes)))], "", now)
        return items

    def silence(self, seconds: float, now: int) -> list[Item]:
        """Lose all frames for ``seconds``."""
        items = self._release(now)
        self._record.fault(self._number, now, Fault.SILENCE, detail=f"{seconds:g} s")
        self._silent_until = max(self._silent_until, now + round(seconds * SECOND_NS))
        return items

    def close(self, code: int, reason: str, now: int, fault: Fault = Fault.CLOSE) -> list[Item]:
        """End the connection; no later frame passes."""
        if self.has_closed:
            return []
        items = self._release(now)
        self.has_closed = True
        self._record.fault(self._number, now, fault, detail=f"code {code}" if code else "no close frame")
        return [*items, Close(code, reason)]

    def announce_shutdown(self, seconds: float, now: int) -> list[Item]:
        """Send the notice of a shutdown in ``seconds``, where the protocol has one."""
        notice = self._protocol.shutdown_frame(now)
        if self.has_closed:
            return []
        self._record.fault(self._number, now, Fault.SHUTDOWN, detail=f"in {seconds:g} s")
        return [] if notice is None else self._put(notice, now, Fault.SHUTDOWN)

    def skip(self, numbers: int, now: int) -> list[Item]:
        """Skip the next ``numbers`` sequence numbers."""
        self._protocol.skip_numbers(numbers)
        self._record.fault(self._number, now, Fault.SKIP, detail=f"{numbers} numbers")
        return []

    def reset(self, now: int) -> list[Item]:
        """Begin the sequence numbers at 0 again."""
        self._protocol.reset_numbers()
        self._record.fault(self._number, now, Fault.RESET)
        return []

    def set_clock(self, seconds: float, now: int) -> list[Item]:
        """Send all later times of the exchange with an error of ``seconds``."""
        self._clock_s = seconds
        self._record.fault(self._number, now, Fault.MISTIME, detail=f"all by {seconds:g} s")
        return []

    def malformed(self, data: bytes, now: int) -> list[Item]:
        """Send a frame of these bytes."""
        return self._extra(Outgoing(-1, data), now, Fault.MALFORMED)

    def unknown(self, now: int) -> list[Item]:
        """Send a message of an unknown kind."""
        return self._extra(self._protocol.unknown_frame(now), now, Fault.UNKNOWN)

    def book(self, product: str, size: int, now: int) -> list[Item]:
        """Send a snapshot of an order book of at least ``size`` bytes."""
        return self._extra(self._protocol.book_frame(product, size, now), now, Fault.SNAPSHOT)

    def _extra(self, out: Outgoing, now: int, fault: Fault) -> list[Item]:
        if self.has_closed or now < self._silent_until:
            self._record.frame(self._number, now, out, Fault.CLOSE if self.has_closed else Fault.SILENCE)
            return []
        self._record.fault(self._number, now, fault, out.sequence, f"{len(out.data)} bytes")
        return self._put(out, now, fault)

    def _apply(self, out: Outgoing, now: int, fault: Fault, amount: float | str) -> list[Item]:
        if fault is Fault.DROP:
            self._record.fault(self._number, now, fault, out.sequence)
            self._record.frame(self._number, now, out, fault)
            return []
        if fault is Fault.REORDER and self._held is None:
            self._record.fault(self._number, now, fault, out.sequence)
            self._held = out
            return []
        if fault is Fault.DAMAGE or fault is Fault.MISTIME:
            return self._change(out, now, fault, amount)
        if isinstance(amount, str):
            raise TypeError(f"{fault} takes a number, got {amount!r}")
        if fault is Fault.DELAY:
            self._record.fault(self._number, now, fault, out.sequence, f"{amount:g} s")
            return [Delay(amount), *self._put(out, now, fault)]
        return [*self._put(out, now, None), *self._append_fault(out, now, fault, amount)]

    def _change(self, out: Outgoing, now: int, fault: Fault, amount: float | str) -> list[Item]:
        """The frame damaged in the way ``amount``, or with times that are wrong by ``amount`` seconds."""
        data = damage_frame(out.data, amount) if isinstance(amount, str) else shift_times(out.data, amount)
        detail = amount if isinstance(amount, str) else f"{amount:g} s"
        self._record.fault(self._number, now, fault, out.sequence, detail)
        return self._put(Outgoing(out.sequence, data), now, fault, out.data)

    def _append_fault(self, out: Outgoing, now: int, fault: Fault, amount: float) -> list[Item]:
        """The items of a fault that leaves the frame itself intact."""
        match fault:
            case Fault.DUPLICATE:
                self._record.fault(self._number, now, fault, out.sequence)
                return self._put(out, now, fault)
            case Fault.SKIP:
                return self.skip(round(amount), now)
            case Fault.MALFORMED:
                return self.malformed(self._damage(out.data), now)
            case Fault.UNKNOWN:
                return self.unknown(now)
        return []

    def _put(self, out: Outgoing, now: int, fault: Fault | None, original: bytes = b"") -> list[Item]:
        """The frame, then the one held back for reordering."""
        self._record.frame(self._number, now, out, fault, original)
        return [out.data, *self._release(now)]

    def _release(self, now: int) -> list[Item]:
        if self._held is None:
            return []
        held, self._held = self._held, None
        self._record.frame(self._number, now, held, Fault.REORDER)
        return [held.data]

    def _draw(self) -> tuple[Fault | None, float | str]:
        faults = self._faults()
        rates = faults.rates
        if not any(rates):
            return None, 0.0
        draw = self._rng.random()
        for fault, rate in zip(_BY_RATE, rates, strict=True):
            draw -= rate
            if draw < 0:
                return fault, self._amount(fault, faults)
        return None, 0.0

    def _amount(self, fault: Fault, faults: Faults) -> float | str:
        match fault:
            case Fault.DELAY:
                return faults.delay_s
            case Fault.DAMAGE:
                return DAMAGES[int(self._rng.integers(len(DAMAGES)))]
            case Fault.MISTIME:
                return faults.mistime_s
        return faults.skip_numbers

    def _is_due(self, fault: Fault, every_s: float, now: int) -> bool:
        if every_s <= 0 or now - self._last[fault] < every_s * SECOND_NS:
            return False
        self._last[fault] = now
        return True

    def _damage(self, data: bytes) -> bytes:
        ways = (
            data[: len(data) // 2],
            b"",
            b"not JSON",
            *self._protocol.malformed,
            b"[]",
        )
        return ways[int(self._rng.integers(len(ways)))]
