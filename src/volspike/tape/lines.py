"""Decoding of tape lines: blocks of regular lines at once, every other line by itself.

A regular line has exactly the fields of ``TapeLine``; ``parse`` turns them into columns. Other lines that are read:
a tape line with empty or missing fields, a bare frame of either protocol, and a recorder's record, which is an object
with the frame as a string under ``raw`` or ``data`` and the receive time in seconds under ``ts``.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import cache
from math import nan
from typing import Any

import msgspec
import numpy as np

from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.messages import (
    DECODE_ERRORS,
    Identifier,
    RawMessage,
    drop_empty_fields,
    malformed_from,
    read_time,
    tick_from_raw,
)
from volspike.feeds.protocol import decode_any
from volspike.market import MISSING_ID, Tick
from volspike.market.time import NOT_A_TIME


class TapeLine(msgspec.Struct, gc=False, kw_only=True):
    """The fields of a tape line that volspike reads; it does not read the 24 hour figures.

    ``time`` (the exchange's clock), ``sequence`` and ``source`` are in tapes of volspike and override those of
    ``raw``. Decode with ``strict=False``, because numbers are text.
    """

    timestamp: str
    product_id: str
    price: float
    best_bid: float | None = nan
    best_ask: float | None = nan
    raw: RawMessage
    time: str = ""
    sequence: Identifier = MISSING_ID
    source: str = ""


_LINE = msgspec.json.Decoder(TapeLine, strict=False)

_NEWLINE, _OPENS, _CLOSES = b"\n{}"


@cache
def _compiled_line_count() -> Callable[[Any], int]:
    """``_one_object_per_line``, compiled; commands that read no NDJSON do not import numba."""
    from volspike.compiled import compiled  # noqa: PLC0415

    return compiled(_one_object_per_line)


def _one_object_per_line(text: Any) -> int:
    """The number of lines if every line end is between ``}`` and ``{``, otherwise -1.

    No JSON value contains a line end between these two. If they all are, and there are as many objects as lines, each
    line holds one object, which msgspec's decoder of many lines does not check itself.
    """
    size = len(text)
    if size == 0 or text[0] != _OPENS:
        return -1
    if text[size - 1] == _NEWLINE:
        size -= 1
    if text[size - 1] != _CLOSES:
        return -1
    lines = 1
    for at in range(size):
        if text[at] == _NEWLINE:
            if text[at - 1] != _CLOSES or text[at + 1] != _OPENS:
                return -1
            lines += 1
    return lines


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8; the JSON decoder does not check fields that it skips."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def decode_block(block: bytes) -> list[TapeLine] | None:
    """The lines of a block; None if any line is not regular."""
    lines = _compiled_line_count()(np.frombuffer(block, np.uint8))
    if lines < 0 or not is_utf8(block):
        return None
    try:
        decoded = _LINE.decode_lines(block)
    except DECODE_ERRORS:
        return None
    return decoded if len(decoded) == lines else None


def decode_line(text: bytes) -> TapeLine | None:
    """One line, or None if it is not regular."""
    if not is_utf8(text):
        return None
    try:
        return _LINE.decode(text)
    except DECODE_ERRORS:
        return None


RECORDED_FRAMES = {"", "recv"}
"""Values of ``t`` with which a recorder marks frames of the exchange; its other records hold no market data."""

SIMULATED = "simulated"
"""``source`` of a line that a simulation made."""

_ABSENT = msgspec.Raw(b"")


class IrregularLine(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a line: its ticks in order, and the number of other messages by type."""

    ticks: tuple[Tick, ...] = ()
    ignored: dict[str, int] = {}
    simulated: bool = False


class _Probe(msgspec.Struct, gc=False):
    """The fields that identify the form of a line; an order book of five million bytes is not decoded."""

    t: Any = ""
    ts: Any = None
    raw: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT
    timestamp: Any = None
    price: Any = None
    channel: Any = None


class _LooseLine(msgspec.Struct, gc=False, kw_only=True):
    """``TapeLine`` in which ``raw`` may have the fields that the line lacks."""

    timestamp: str
    product_id: str = ""
    price: float = nan
    best_bid: float = nan
    best_ask: float = nan
    raw: RawMessage | None = None
    time: str = ""
    sequence: Identifier = MISSING_ID
    source: str = ""


_PROBE = msgspec.json.Decoder(_Probe)


def read_irregular_line(text: bytes) -> IrregularLine:
    """The content of one line in any of the forms above.

    Raises:
        MalformedTick: the line has none of them, or an invalid value.
    """
    if not is_utf8(text):
        raise MalformedTick("not UTF-8")
    try:
        probe = _PROBE.decode(text)
    except DECODE_ERRORS as error:
        raise malformed_from(error) from error
    if isinstance(probe.t, str) and probe.t not in RECORDED_FRAMES:
        return IrregularLine(ignored={probe.t: 1})
    for frame in (probe.raw, probe.data):
        if bytes(memoryview(frame)[:1]) == b'"':
            return _read_record(msgspec.json.decode(frame, type=str), probe.ts)
    if probe.timestamp is not None and probe.channel is None and (probe.price is not None or probe.raw):
        return _read_loose_line(text)
    return _read_frame(text)


def line_tick(line: TapeLine) -> Tick | None:
    """The tick of a tape line; None for a trade from before the subscription.

    Raises:
        MalformedTick: a value is missing or invalid.
    """
    received = read_time(line.timestamp, "$.timestamp")
    raw = line.raw
    tick = tick_from_raw(
        msgspec.structs.replace(
            raw,
            time=line.time or raw.time,
            sequence=raw.sequence if line.sequence == MISSING_ID else line.sequence,
        ),
        received=received,
        product_id=line.product_id,
        price=line.price,
        best_bid=nan if line.best_bid is None else line.best_bid,
        best_ask=nan if line.best_ask is None else line.best_ask,
    )
    return None if tick is None else _check_range(tick)


def _read_loose_line(text: bytes) -> IrregularLine:
    try:
        line = msgspec.convert(drop_empty_fields(msgspec.json.decode(text)), _LooseLine, strict=False)
    except DECODE_ERRORS as error:
        raise malformed_from(error) from error
    fields = {name: getattr(line, name) for name in _LooseLine.__struct_fields__ if name != "raw"}
    tick = line_tick(TapeLine(raw=line.raw or RawMessage(), **fields))
    simulated = line.source == SIMULATED
    return IrregularLine(ignored={"history": 1}) if tick is None else IrregularLine(ticks=(tick,), simulated=simulated)


def _read_record(frame: str, seconds: Any) -> IrregularLine:
    """A recorder's record; ``ts`` is read from its decimal digits, because a float would round it."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise MalformedTick(f"Expected seconds since 1970, got {seconds!r}", "$.ts")
    try:
        received = int(Decimal(repr(seconds)).scaleb(9).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise MalformedTick(f"Expected seconds since 1970, got {seconds!r}", "$.ts") from error
    return _content(decode_any(frame, received))


def _read_frame(text: bytes) -> IrregularLine:
    """A frame without a receive time; the exchange's time replaces it."""
    frame = decode_any(text, NOT_A_TIME)
    if frame.ticks and frame.time == NOT_A_TIME:
        raise MalformedTick("required and missing", "$.time")
    ticks = tuple(msgspec.structs.replace(tick, received=frame.time) for tick in frame.ticks)
    return _content(msgspec.structs.replace(frame, ticks=ticks))


def _content(frame: Frame) -> IrregularLine:
    ignored = {
        "history": len(frame.history),
        "heartbeat": len(frame.heartbeats),
        "subscriptions": int(frame.ack is not None),
        "error": int(frame.error is not None),
    }
    if frame.ignored is not None:
        ignored[frame.ignored] = 1
    return IrregularLine(
        ticks=tuple(_check_range(tick) for tick in frame.ticks),
        ignored={name: number for name, number in ignored.items() if number},
    )


def _check_range(tick: Tick) -> Tick:
    """The tick itself; raises ``MalformedTick`` if a value does not fit its column."""
    if not tick.product_id:
        raise MalformedTick("required and missing", "$.product_id")
    if not (NOT_A_TIME < tick.time < 2**63 and NOT_A_TIME < tick.received < 2**63):
        raise MalformedTick("the time is out of range", "$.time")
    if max(tick.trade_id, tick.sequence) >= 2**63 or min(tick.trade_id, tick.sequence) < MISSING_ID:
        raise MalformedTick("the trade id or sequence number is out of range", "$")
    return tick
