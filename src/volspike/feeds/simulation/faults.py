"""What the simulated exchange did to its clients: every frame in its order, and every fault beside it.

Only the newest are kept; the counts go on. Tests compare a client's gaps with this.

Faults on demand: each frame of a connection passes here on its way out, and some do not arrive as they should.

Decided when a frame is made, not when the socket takes it, so that the same seed gives the same faults.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
import numpy as np

from volspike.feeds.simulation.protocols import Outgoing, Speaker
from volspike.market import SECOND_NS

KEPT_BYTES = 1 << 16


class Fault(StrEnum):
    """What can go wrong between the exchange and a client."""

    DROP = "drop"
    """A frame is lost; its sequence number is used up."""
    DELAY = "delay"
    """A frame, and all behind it, comes late."""
    DUPLICATE = "duplicate"
    """A frame comes twice."""
    REORDER = "reorder"
    """A frame comes after the one that follows it."""
    SKIP = "skip"
    """Sequence numbers are never used; nothing is lost, though it looks so."""
    SILENCE = "silence"
    """Nothing comes for a while, and what would have come is lost, its sequence numbers used up."""
    CLOSE = "close"
    """The connection ends, with or without a close frame."""
    MALFORMED = "malformed"
    """A frame too many, which cannot be read."""
    UNKNOWN = "unknown"
    """A message too many, of a kind that is not known; on Advanced Trade it is numbered."""
    SNAPSHOT = "snapshot"
    """A snapshot of an order book that nobody asked for, of megabytes; on Advanced Trade it is numbered."""
    SLOW_READER = "slow reader"
    """The client did not read fast enough and was disconnected: the exchange's own doing, as at Coinbase."""
    UNSENT = "unsent"
    """Frames were made and not written when the connection ended."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One frame as it left, or did not (``is_lost``), in the order of the wire.

    ``connection`` counts from 1 in the order of connecting, ``time`` is simulated (ns UTC), ``sequence`` the number
    that it carries or -1. ``data`` are its first 64 KiB. A frame under way when a connection broke counts as sent.
    """

    connection: int
    time: int
    sequence: int
    data: bytes
    fault: Fault | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it never went out."""
        return self.fault in {Fault.DROP, Fault.SILENCE, Fault.UNSENT, Fault.CLOSE}


class Injected(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: at which frame it struck (``sequence``, else -1), and in ``detail`` how much, how long, which code."""

    connection: int
    time: int
    fault: Fault
    sequence: int = -1
    detail: str = ""


class Record:
    """The newest ``kept`` frames and faults, and counts of all."""

    def __init__(self, kept: int) -> None:
        self.sent: deque[Sent] = deque(maxlen=kept)
        self.injected: deque[Injected] = deque(maxlen=kept)
        self.faults: Counter[Fault] = Counter()
        self.frames = self.lost = 0

    def frame(self, connection: int, time: int, out: Outgoing, fault: Fault | None = None) -> None:
        """Notes a frame; a lost one counts in ``lost``, not in ``frames``."""
        data = out.data if len(out.data) <= KEPT_BYTES else out.data[:KEPT_BYTES]
        sent = Sent(connection=connection, time=time, sequence=out.sequence, data=data, fault=fault)
        if fault is not None and sent.is_lost:
            self.lost += 1
        else:
            self.frames += 1
        self.sent.append(sent)

    def fault(self, connection: int, time: int, fault: Fault, sequence: int = -1, detail: str = "") -> None:
        """Notes a fault."""
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
)


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong by itself.

    Rates are per frame and at most one strikes a frame, so that they add up to 1 at most. ``…_every_s`` are
    simulated seconds since the connection was made, 0 is never; so is ``silence_s``. ``delay_s`` is the network's
    and of the wall clock. A connection is closed with one of ``close_codes``; 0 is without a close frame.
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
    silence_every_s: _Seconds = 0.0
    silence_s: _Seconds = 15.0
    close_every_s: _Seconds = 0.0
    close_codes: Annotated[tuple[_Code, ...], msgspec.Meta(min_length=1)] = (1001,)
    snapshot_every_s: _Seconds = 0.0
    snapshot_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 28)] = 5_000_000

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of the faults that strike frames, in the order in which they are drawn."""
        return tuple(getattr(self, fault.value) for fault in _BY_RATE)


class Delay(NamedTuple):
    """Everything behind this waits, in wall seconds."""

    seconds: float


class Close(NamedTuple):
    """The connection ends here; code 0 is without a close frame."""

    code: int
    reason: str = ""


Item: TypeAlias = bytes | Delay | Close
"""What goes to the socket of one connection, in its order."""


class Injector:
    """The faults of one connection; every method answers what now goes to its socket."""

    def __init__(
        self, number: int, speaker: Speaker, record: Record, faults: Callable[[], Faults], seed: int, opened: int
    ) -> None:
        self.has_closed = False
        self._number = number
        self._speaker = speaker
        self._record = record
        self._faults = faults
        self._rng = np.random.default_rng([seed, number, 2])
        self._ordered: deque[tuple[Fault, float]] = deque()
        self._held: Outgoing | None = None
        self._silent_until = opened
        self._last = dict.fromkeys((Fault.SILENCE, Fault.CLOSE, Fault.SNAPSHOT), opened)

    def order(self, fault: Fault, times: int, amount: float = 0.0) -> None:
        """The next ``times`` frames are struck by ``fault``."""
        self._ordered.extend([(fault, amount)] * times)

    def through(self, out: Outgoing, now: int) -> list[Item]:
        """A frame on its way."""
        if self.has_closed:
            self._record.frame(self._number, now, out, Fault.CLOSE)
            return []
        if now < self._silent_until:
            self._record.frame(self._number, now, out, Fault.SILENCE)
            return []
        fault, amount = self._ordered.popleft() if self._ordered else self._drawn()
        if fault is None:
            return self._put(out, now, None)
        return self._struck(out, now, fault, amount)

    def periodic(self, product: str, now: int) -> list[Item]:
        """What strikes from time to time; a snapshot is of ``product``."""
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
        """Nothing more for ``seconds``."""
        items = self._released(now)
        self._record.fault(self._number, now, Fault.SILENCE, detail=f"{seconds:g} s")
        self._silent_until = max(self._silent_until, now + round(seconds * SECOND_NS))
        return items

    def close(self, code: int, reason: str, now: int, fault: Fault = Fault.CLOSE) -> list[Item]:
        """The end; nothing passes any more."""
        if self.has_closed:
            return []
        items = self._released(now)
        self.has_closed = True
        self._record.fault(self._number, now, fault, detail=f"code {code}" if code else "no close frame")
        return [*items, Close(code, reason)]

    def skip(self, numbers: int, now: int) -> list[Item]:
        """The next ``numbers`` sequence numbers are not used."""
        self._speaker.skip(numbers)
        self._record.fault(self._number, now, Fault.SKIP, detail=f"{numbers} numbers")
        return []

    def malformed(self, data: bytes, now: int) -> list[Item]:
        """A frame of just these bytes."""
        return self._extra(Outgoing(-1, data), now, Fault.MALFORMED)

    def unknown(self, now: int) -> list[Item]:
        """A message of a kind that nobody knows."""
        return self._extra(self._speaker.unknown(now), now, Fault.UNKNOWN)

    def book(self, product: str, size: int, now: int) -> list[Item]:
        """An order book's snapshot of at least ``size`` bytes."""
        return self._extra(self._speaker.book(product, size, now), now, Fault.SNAPSHOT)

    def _extra(self, out: Outgoing, now: int, fault: Fault) -> list[Item]:
        if self.has_closed or now < self._silent_until:
            self._record.frame(self._number, now, out, Fault.CLOSE if self.has_closed else Fault.SILENCE)
            return []
        self._record.fault(self._number, now, fault, out.sequence, f"{len(out.data)} bytes")
        return self._put(out, now, fault)

    def _struck(self, out: Outgoing, now: int, fault: Fault, amount: float) -> list[Item]:
        if fault is Fault.DROP:
            self._record.fault(self._number, now, fault, out.sequence)
            self._record.frame(self._number, now, out, fault)
            return []
        if fault is Fault.REORDER and self._held is None:
            self._record.fault(self._number, now, fault, out.sequence)
            self._held = out
            return []
        if fault is Fault.DELAY:
            self._record.fault(self._number, now, fault, out.sequence, f"{amount:g} s")
            return [Delay(amount), *self._put(out, now, fault)]
        return [*self._put(out, now, None), *self._followed(out, now, fault, amount)]

    def _followed(self, out: Outgoing, now: int, fault: Fault, amount: float) -> list[Item]:
        """What a fault sends after a frame that itself arrives well."""
        match fault:
            case Fault.DUPLICATE:
                self._record.fault(self._number, now, fault, out.sequence)
                return self._put(out, now, fault)
            case Fault.SKIP:
                return self.skip(round(amount), now)
            case Fault.MALFORMED:
                return self.malformed(self._damaged(out.data), now)
            case Fault.UNKNOWN:
                return self.unknown(now)
        return []

    def _put(self, out: Outgoing, now: int, fault: Fault | None) -> list[Item]:
        """The frame, and behind it the one that was held back for it."""
        self._record.frame(self._number, now, out, fault)
        return [out.data, *self._released(now)]

    def _released(self, now: int) -> list[Item]:
        if self._held is None:
            return []
        held, self._held = self._held, None
        self._record.frame(self._number, now, held, Fault.REORDER)
        return [held.data]

    def _drawn(self) -> tuple[Fault | None, float]:
        faults = self._faults()
        rates = faults.rates
        if not any(rates):
            return None, 0.0
        draw = self._rng.random()
        for fault, rate in zip(_BY_RATE, rates, strict=True):
            draw -= rate
            if draw < 0:
                return fault, faults.delay_s if fault is Fault.DELAY else faults.skip_numbers
        return None, 0.0

    def _is_due(self, fault: Fault, every_s: float, now: int) -> bool:
        if every_s <= 0 or now - self._last[fault] < every_s * SECOND_NS:
            return False
        self._last[fault] = now
        return True

    def _damaged(self, data: bytes) -> bytes:
        ways = (
            data[: len(data) // 2],
            b"",
            b"not JSON",
            b'{"channel":"ticker","events":7}',
            b'{"type":"ticker"}',
            b"[]",
        )
        return ways[int(self._rng.integers(len(ways)))]
