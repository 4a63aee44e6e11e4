"""Decoding of tape lines: blocks of regular lines at once, every other line by itself.

A regular line has exactly the fields of ``TapeLine``; ``parse`` turns them into columns. Other lines that are read:

- an object with the fields of a tick under any names of ``fields``, with or without a ``raw`` message;
- a bare frame of either protocol of Coinbase;
- a recorder's envelope: an object in which one value is such an object, a list of them, or their text, whatever its
  name, and in which the first field known as a time is the receive time;
- any of these after the receive time and a blank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from math import isnan, nan
from typing import Any

import msgspec
import numpy as np

from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.messages import (
    DECODE_ERRORS,
    LAST_MATCH,
    Identifier,
    RawMessage,
    malformed_from,
    read_time,
    replace_invalid_numbers,
    tick_from_raw,
    with_path_prefix,
)
from volspike.feeds.venues import decode_any
from volspike.market import MISSING_ID, Kind, Tick
from volspike.market.time import NOT_A_TIME
from volspike.tape.fields import UNREAD_IDS, FieldNames, listed, match_names, read_instant
from volspike.tape.flat import Context, FlatObject, JsonObject, is_flat


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


class IrregularLine(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a line: its ticks in order, the number of other messages by type, and remarks about its names.

    ``faults`` are the parts of a frame that could not be decoded.
    """

    ticks: tuple[Tick, ...] = ()
    ignored: dict[str, int] = {}
    simulated: bool = False
    notes: tuple[str, ...] = ()
    faults: tuple[MalformedTick, ...] = ()


def read_irregular_line(text: bytes) -> IrregularLine:
    """The content of one line in any of the forms above.

    Raises:
        MalformedTick: the line has none of them, or an invalid value.
    """
    if not is_utf8(text):
        raise MalformedTick("not UTF-8")
    text, received = _split_prefix(text)
    values = _decode_object(text)
    record = _text_or_none(values.get("t"))
    if record is not None and record not in RECORDED_FRAMES and not _is_time(record):
        return IrregularLine(ignored={record: 1})
    return _read_object(text, values, Context(received), is_envelope=True)


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


_LINE_NAMES = frozenset(TapeLine.__struct_fields__)
_RAW_NAMES = frozenset(RawMessage.__struct_fields__)
_EXCHANGE_NAMES = _RAW_NAMES - {"best_bid_quantity", "best_ask_quantity"}


def has_regular_names(text: bytes) -> bool:
    """Whether ``TapeLine`` and ``RawMessage`` read every field of a tick that a regular line holds."""
    line, raw = _names_of(text)
    for names, read, other in ((line, _LINE_NAMES, raw), (raw, _RAW_NAMES, line)):
        for field, name in names.of.items():
            if name not in read and field != "kind" and other.of.get(field) not in _LINE_NAMES | _RAW_NAMES:
                return False
    return True


def name_notes(text: bytes) -> tuple[str, ...]:
    """Remarks about the names of a regular line that are not read."""
    line, raw = _names_of(text)
    return line.notes + raw.notes


class _Keys(msgspec.Struct, gc=False):
    raw: dict[str, msgspec.Raw] = {}


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEYS = msgspec.json.Decoder(_Keys)


def _names_of(text: bytes) -> tuple[FieldNames, FieldNames]:
    return match_names(tuple(_OBJECT.decode(text))), match_names(tuple(_KEYS.decode(text).raw))


def _split_prefix(text: bytes) -> tuple[bytes, int]:
    """A line without the time in front of its object, and that time; ``NOT_A_TIME`` if there is none."""
    if text[:1] == b"{":
        return text, NOT_A_TIME
    prefix, opening, rest = text.partition(b"{")
    if not opening or not 0 < len(prefix) <= _LONGEST_PREFIX:
        return text, NOT_A_TIME
    try:
        received = read_instant(prefix.decode().strip(" \t,;:|"), "$")
    except MalformedTick:
        return text, NOT_A_TIME
    return opening + rest, received


_LONGEST_PREFIX = 64


def _decode_object(text: bytes) -> dict[str, msgspec.Raw]:
    """The values of a JSON object; ``NaN`` and ``Infinity``, which are no JSON, become null.

    Raises:
        MalformedTick: the text is no JSON object.
    """
    try:
        return _OBJECT.decode(text)
    except DECODE_ERRORS as error:
        plain = replace_invalid_numbers(text)
        if plain is None:
            raise malformed_from(error) from error
    try:
        return _OBJECT.decode(plain)
    except DECODE_ERRORS as error:
        raise malformed_from(error) from error


def _text_or_none(value: msgspec.Raw | None) -> str | None:
    if value is None or bytes(memoryview(value)[:1]) != b'"':
        return None
    return msgspec.json.decode(value, type=str)


def _is_time(text: str) -> bool:
    try:
        read_instant(text, "$")
    except MalformedTick:
        return False
    return True


_FRAME_TYPES = {"ticker", "match", LAST_MATCH, "heartbeat", "subscriptions", "error"}


def _read_object(text: bytes, values: JsonObject, context: Context, *, is_envelope: bool = False) -> IrregularLine:
    """The content of an object: a tick, a frame of either protocol, or with ``is_envelope`` one object around these."""
    if "channel" in values and "events" in values:
        return _read_advanced_trade(text, context)
    kind = _text_or_none(values.get("type"))
    if kind in _FRAME_TYPES and "timestamp" not in values:
        return _read_frame(text, values, context)
    names = match_names(tuple(values))
    raw = values.get("raw")
    has_raw = raw is not None and bytes(memoryview(raw)[:1]) == b"{"
    if is_flat(names, context) or (has_raw and is_envelope and "timestamp" in names):
        return _read_flat(values, context)
    if is_envelope:
        found = _unwrap(values, names, context)
        if found is not None:
            return found
    if kind is None and "channel" not in values:
        raise MalformedTick(
            f"no tick and no frame in the fields {_listed(values)}; looked for price with {listed(('timestamp',))} "
            "or time, a channel or type of Coinbase, or one object or text that holds these"
        )
    return _content(decode_any(text, context.received))


def _listed(values: JsonObject) -> str:
    return ", ".join(list(values)[:8]) + (", …" if len(values) > 8 else "") if values else "(none)"


def _read_flat(values: JsonObject, context: Context) -> IrregularLine:
    flat = FlatObject(values, context)
    tick = flat.tick()
    if tick is None:
        return IrregularLine(ignored={"history": 1}, notes=flat.notes)
    simulated = _text_or_none(values.get("source")) == SIMULATED or values.get("simulated") == b"true"
    notes = flat.notes if tick.trade_id != MISSING_ID or not flat.has_id else (*flat.notes, UNREAD_IDS)
    return IrregularLine(ticks=(_check_range(tick),), simulated=simulated, notes=notes)


def _read_frame(text: bytes, values: JsonObject, context: Context) -> IrregularLine:
    """A message of Coinbase; one whose names or values its codec does not read is read as a flat object."""
    names = match_names(tuple(values))
    if not _EXCHANGE_NAMES.issuperset(names.of.values()):
        return _read_flat(values, context)
    try:
        content = _content(_with_receive_time(decode_any(text, context.received)))
    except MalformedTick:
        if "price" not in names:
            raise
        return _read_flat(values, context)
    return msgspec.structs.replace(content, notes=names.notes) if names.notes else content


def _read_advanced_trade(text: bytes, context: Context) -> IrregularLine:
    """A frame of Advanced Trade; best sizes may have any name."""
    frame = _with_receive_time(decode_any(text, context.received))
    ticks, notes = list(frame.ticks), tuple[str, ...]()
    for place, (tick, message) in enumerate(zip(frame.ticks, frame.messages, strict=False)):
        values = _OBJECT.decode(message.text)
        names = match_names(tuple(values))
        notes += names.notes
        if (tick.kind is Kind.TICKER and not _RAW_NAMES.issuperset(names.of.values())) or _lacks_size(tick, names):
            ticks[place] = FlatObject(values, Context(tick.received, frame.time)).tick() or tick
    content = _content(msgspec.structs.replace(frame, ticks=tuple(ticks)))
    return msgspec.structs.replace(content, notes=notes) if notes else content


def _lacks_size(tick: Tick, names: FieldNames) -> bool:
    """Whether the codec found no size of the book where the message names one."""
    return (isnan(tick.bid_size) and "bid_size" in names) or (isnan(tick.ask_size) and "ask_size" in names)


def _with_receive_time(frame: Frame) -> Frame:
    """The frame, with the exchange's time in place of a missing receive time."""
    if not frame.ticks or frame.ticks[0].received != NOT_A_TIME:
        return frame
    if frame.time == NOT_A_TIME:
        raise MalformedTick("required and missing", "$.time")
    ticks = tuple(msgspec.structs.replace(tick, received=frame.time) for tick in frame.ticks)
    return msgspec.structs.replace(frame, ticks=ticks)


def _unwrap(values: JsonObject, names: FieldNames, context: Context) -> IrregularLine | None:
    """The content of the only value that holds a frame or tick; None if there is no such value.

    Raises:
        MalformedTick: the only candidate is damaged, or several values hold different ticks.
    """
    around: Context | None = None
    found: dict[str, IrregularLine] = {}
    faults: list[MalformedTick] = []
    for name, value in values.items():
        objects = _inner_objects(value)
        if not objects:
            continue
        around = around or _envelope_context(values, names, context)
        try:
            found[name] = _joined([_read_object(text, _decode_object(text), around) for text in objects])
        except MalformedTick as fault:
            faults.append(with_path_prefix(fault, f"$.{name}"))
    if not found:
        if faults:
            raise faults[0]
        return None
    first = next(iter(found.values()))
    if len(found) > 1 and any(repr(other.ticks) != repr(first.ticks) for other in found.values()):
        raise MalformedTick(f"several values hold different ticks: {', '.join(found)}")
    return first


def _inner_objects(value: msgspec.Raw) -> list[bytes]:
    """The texts of the object, of the list of objects, or of the object within a text; none of anything else."""
    text = bytes(value)
    if text[:1] == b'"':
        if text[1:2] not in _OPENING:
            return []
        text = msgspec.json.decode(text, type=str).strip().encode()
        if text[:1] == b'"':  # encoded twice
            with suppress(msgspec.DecodeError):
                text = msgspec.json.decode(text, type=str).strip().encode()
    if text[:1] == b"{":
        return [text]
    if text[:1] == b"[":
        with suppress(msgspec.DecodeError):
            items = [bytes(item) for item in msgspec.json.decode(text, type=list[msgspec.Raw])]
            return [item for item in items if item[:1] == b"{"]
    return []


_OPENING = (b"{", b"[", b"\\", b" ")
"""How a text begins that may hold JSON: an object, a list, an escape or a blank."""


def _envelope_context(values: JsonObject, names: FieldNames, context: Context) -> Context:
    """The time and product that an envelope states: its first field that is known as a time is the receive time."""
    received = context.received
    clock = next((names.of[field] for field in ("received", "timestamp", "time") if field in names), None)
    clock = "t" if clock is None and "t" in values and values["t"] not in (b'""', b'"recv"') else clock
    if received == NOT_A_TIME and clock is not None:
        received = read_instant(values[clock], f"$.{clock}")
    product = _text_or_none(values[names.of["product_id"]]) if "product_id" in names else None
    return Context(received, product_id=product or "")


def _joined(lines: list[IrregularLine]) -> IrregularLine:
    if len(lines) == 1:
        return lines[0]
    ignored: Counter[str] = Counter()
    for line in lines:
        ignored.update(line.ignored)
    return IrregularLine(
        ticks=tuple(tick for line in lines for tick in line.ticks),
        ignored=dict(ignored),
        simulated=any(line.simulated for line in lines),
        notes=tuple(note for line in lines for note in line.notes),
        faults=tuple(fault for line in lines for fault in line.faults),
    )


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
        faults=tuple(damage.error for damage in frame.faults),
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
