"""NDJSON tapes → chunks of ticks, block by block.

Regular lines become columns at once, with exactly the values that ``lines.line_tick`` gives line by line. Lines with an
unusual value are excluded by ``Columns.usual`` and read one by one, so that one rule decides every doubtful case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volspike.errors import MalformedTick
from volspike.feeds.messages import LAST_MATCH, SIDES, TAKER_OF_MAKER, RawMessage
from volspike.market import MISSING_ID, Kind, Side, Tick, Ticks
from volspike.market.time import NOT_A_TIME, parse_times
from volspike.tape.blocks import Blocks
from volspike.tape.chronology import TapeZone
from volspike.tape.lines import (
    SIMULATED,
    TapeLine,
    decode_block,
    decode_line,
    has_regular_names,
    line_tick,
    name_notes,
    read_irregular_line,
)
from volspike.tape.report import NumberedTicks, RejectionSink, TapeReport

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_UNKNOWN_SIDE = 2


class Columns(NamedTuple):
    """One tick per line; only those where ``usual`` is true are valid."""

    ticks: Ticks
    usual: Mask


class _Book(NamedTuple):
    """One side of the book."""

    price: Floats
    size: Floats
    is_usual: Mask


def columns_of(lines: Sequence[TapeLine]) -> Columns:
    """The lines as ticks, row by row."""
    raws = [line.raw for line in lines]
    received = parse_times([line.timestamp for line in lines])
    time = _exchange_times(lines, raws, received)
    price = _floats(lines, "price")
    types = [raw.type for raw in raws]
    trade_id = _integers(raws, "trade_id")
    size = _floats(raws, "size")
    is_trade = _is_trade(raws, types, size, trade_id)
    last_size = np.where(is_trade, size, _floats(raws, "last_size"))
    bid, ask = _book(lines, raws, "best_bid", is_trade), _book(lines, raws, "best_ask", is_trade)
    side = _sides([raw.side for raw in raws], is_trade)
    products, product = _products([line.product_id for line in lines])
    usual = (received != NOT_A_TIME) & (time != NOT_A_TIME) & _is_price(price) & _is_size(last_size)
    usual &= (side != _UNKNOWN_SIDE) & bid.is_usual & ask.is_usual
    if "" in products:
        usual &= product != products.index("")
    if LAST_MATCH in types:
        usual &= np.array([name != LAST_MATCH for name in types])
    ticks = Ticks(
        products=products,
        time=time,
        received=received,
        kind=np.where(is_trade, np.int8(Kind.TRADE), np.int8(Kind.TICKER)),
        product=product,
        price=price,
        best_bid=bid.price,
        best_ask=ask.price,
        bid_size=bid.size,
        ask_size=ask.size,
        last_size=last_size,
        side=side,
        trade_id=trade_id,
        sequence=_sequences(lines, raws),
    )
    return Columns(ticks, usual)


def _floats(structs: Sequence[object], name: str) -> Floats:
    return np.array(list(map(attrgetter(name), structs)), np.float64)


def _integers(structs: Sequence[object], name: str) -> NDArray[np.int64]:
    return np.array(list(map(attrgetter(name), structs)), np.int64)


def _is_price(values: Floats) -> Mask:
    return (values > 0.0) & (values < np.inf)


def _is_size(values: Floats) -> Mask:
    """NaN is a missing value and valid."""
    return np.isnan(values) | ((values >= 0.0) & (values < np.inf))


def _exchange_times(
    lines: Sequence[TapeLine], raws: Sequence[RawMessage], received: NDArray[np.int64]
) -> NDArray[np.int64]:
    texts = [line.time or raw.time for line, raw in zip(lines, raws, strict=True)]
    if not any(texts):
        return received
    if all(texts):
        return parse_times(texts)
    present = [row for row, text in enumerate(texts) if text]
    time = received.copy()
    time[present] = parse_times([texts[row] for row in present])
    return time


def _sequences(lines: Sequence[TapeLine], raws: Sequence[RawMessage]) -> NDArray[np.int64]:
    own = _integers(lines, "sequence")
    is_missing = own == MISSING_ID
    return np.where(is_missing, _integers(raws, "sequence"), own) if is_missing.any() else own


def _book(lines: Sequence[TapeLine], raws: Sequence[RawMessage], name: str, is_trade: Mask) -> _Book:
    """One side of the book; the fields of ``raw`` are read only if the line lacks a value."""
    price = _floats(lines, name)
    if np.isnan(price).any():
        price = np.where(np.isnan(price), _floats(raws, name), price)
    size = _floats(raws, f"{name}_quantity")
    if np.isnan(size).any():
        size = np.where(np.isnan(size), _floats(raws, f"{name}_size"), size)
    is_empty = np.isnan(price) | (price == 0.0)
    is_usual = is_trade | is_empty | (_is_price(price) & _is_size(size))
    is_missing = is_empty | is_trade
    if is_missing.any():
        price, size = np.where(is_missing, np.nan, price), np.where(is_missing, np.nan, size)
    return _Book(price, size, is_usual)


def _is_trade(raws: Sequence[RawMessage], types: Sequence[str], size: Floats, trade_id: NDArray[np.int64]) -> Mask:
    """As ``RawMessage.is_trade``: by name, or a size and an id without quotes."""
    is_trade: Mask = ~np.isnan(size) & (trade_id != MISSING_ID)
    if is_trade.any():
        is_trade &= np.isnan(_floats(raws, "best_bid")) & np.isnan(_floats(raws, "best_ask"))
    if "match" in types:
        is_trade |= np.array([name == "match" for name in types])
    return is_trade


def _sides(words: Sequence[str], is_trade: Mask) -> NDArray[np.int8]:
    """The taker's side; a trade's word is the maker's."""
    if not any(words):
        return np.zeros(len(words), np.int8)
    return np.where(is_trade, _codes(words, TAKER_OF_MAKER), _codes(words, SIDES))


def _codes(words: Sequence[str], sides: Mapping[str, Side]) -> NDArray[np.int8]:
    codes = {word: int(side) for word, side in sides.items()}
    return np.array([codes.get(word, _UNKNOWN_SIDE) for word in words], np.int8)


def _products(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    if len(codes) == 1:
        return tuple(codes), np.zeros(len(names), np.int32)
    return tuple(codes), np.array([codes[name] for name in names], np.int32)


_SAMPLED_LINES = 32
"""Lines of each block whose names are checked."""

BLOCK_BYTES = 2 << 20
"""Bytes of text decoded at once; the fastest of 256 KiB to 8 MiB."""


def ndjson_ticks(
    path: Path,
    report: TapeReport,
    rejected: RejectionSink | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    clock: TapeZone | None = None,
) -> Iterator[NumberedTicks]:
    """The ticks of one tape in the order of its lines, one block at a time.

    Dropped lines are counted in ``report``, and damaged ones are passed to ``rejected``. ``clock`` learns whether the
    times have a zone.
    """
    reading = _Reading(path, report, rejected, clock)
    with Blocks(path, block_bytes) as blocks:
        counted = 0
        for block in blocks:
            yield reading.ticks(block)
            report.bytes_read += blocks.consumed - counted
            counted = blocks.consumed
        if blocks.fault is not None:
            report.add_note(path, blocks.fault)


def block_ticks(block: bytes, report: TapeReport, rejected: RejectionSink) -> Ticks:
    """The ticks of tape lines that are not in a file, in their order; see ``ndjson_ticks``."""
    return _Reading(Path(), report, rejected, None).ticks(block).ticks


_INSTANT = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?( ?Z| ?UTC|[+-]\d\d)?")
_SAMPLED_BYTES = 4096


def _find_zones(block: bytes, clock: TapeZone) -> None:
    """Finds out from the first lines of a block which of its times have a zone.

    If all have none, neither clock has; if some have none, it is the time of receipt, as the exchange's has one.
    """
    zones = [match[1] for match in _INSTANT.finditer(block, 0, _SAMPLED_BYTES)]
    if zones:
        clock.naive_time = not any(zones)
        clock.naive_received = not all(zones)


class _Found:
    """The content of one block, each item with its line number."""

    def __init__(self, lines: list[TapeLine], numbers: NDArray[np.int64]) -> None:
        self.lines = lines
        self.numbers = numbers
        self.irregular: list[Tick] = []
        self.irregular_numbers: list[int] = []
        self.rejected: list[tuple[int, str, bytes]] = []

    def add_ticks(self, number: int, ticks: Sequence[Tick]) -> None:
        self.irregular.extend(ticks)
        self.irregular_numbers.extend(number for _ in ticks)

    def reject(self, number: int, fault: MalformedTick, text: bytes) -> None:
        self.rejected.append((number, str(fault), text))


class _Reading:
    """One tape being read."""

    def __init__(self, path: Path, report: TapeReport, rejected: RejectionSink | None, clock: TapeZone | None) -> None:
        self._path = path
        self._clock = clock
        self._report = report
        self._rejected = rejected
        self._line = 1
        self._notes: set[str] = set()

    def ticks(self, block: bytes) -> NumberedTicks:
        """The ticks of the next block, in the order of its lines."""
        first = self._line
        if self._clock is not None:
            _find_zones(block, self._clock)
        lines = decode_block(block)
        if lines is None or not self._has_regular_names(block):
            found = self._one_by_one(block, first)
            self._line += block.count(b"\n")
        else:
            found = _Found(lines, np.arange(first, first + len(lines)))
            self._report.lines += len(lines)
            self._line += len(lines)
        ticks = self._joined(found, block, first)
        for number, reason, text in sorted(found.rejected):
            self._report.add_rejected(self._path, number, reason)
            if self._rejected is not None:
                self._rejected.add(number, reason, text)
        return ticks

    def _has_regular_names(self, block: bytes) -> bool:
        """Whether the names in a sample of a block's regular lines are all read; notes the others."""
        is_regular = True
        for place in range(0, len(block), max(1, len(block) // _SAMPLED_LINES)):
            end = block.find(b"\n", place)
            text = block[block.rfind(b"\n", 0, place) + 1 : end if end >= 0 else len(block)]
            if text:
                is_regular &= self._reads_names(text)
        return is_regular

    def _reads_names(self, text: bytes) -> bool:
        """Whether the names of a regular line are all read; remarks about the others are noted once per tape."""
        if not has_regular_names(text):
            return False
        self._note(name_notes(text))
        return True

    def _note(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self._notes:
                self._notes.add(note)
                self._report.add_note(self._path, note, is_loss=False)

    def _one_by_one(self, block: bytes, first: int) -> _Found:
        """Reads every line by itself, so that only the damaged ones are lost."""
        lines: list[TapeLine] = []
        numbers: list[int] = []
        odd: list[tuple[int, bytes]] = []
        for number, text in enumerate(block.split(b"\n"), first):
            stripped = text.strip()
            if not stripped:
                continue
            self._report.lines += 1
            line = decode_line(stripped)
            if line is None or not self._reads_names(stripped):
                odd.append((number, stripped))
            else:
                lines.append(line)
                numbers.append(number)
        found = _Found(lines, np.array(numbers, np.int64))
        for number, text in odd:
            self._irregular_line(found, number, text)
        return found

    def _irregular_line(self, found: _Found, number: int, text: bytes) -> None:
        try:
            line_content = read_irregular_line(text)
        except MalformedTick as fault:
            found.reject(number, fault, text)
            return
        found.add_ticks(number, line_content.ticks)
        for damage in line_content.faults:
            found.reject(number, damage, text)
        self._note(line_content.notes)
        self._report.ignored.update(line_content.ignored)
        self._report.simulated |= line_content.simulated

    def _joined(self, found: _Found, block: bytes, first: int) -> NumberedTicks:
        parts: list[Ticks] = []
        numbers = found.numbers
        if found.lines:
            self._report.simulated |= SIMULATED in {line.source for line in found.lines}
            ticks, usual = columns_of(found.lines)
            if not usual.all():
                self._unusual(found, np.flatnonzero(~usual), block.split(b"\n"), first)
                ticks, numbers = ticks[usual], numbers[usual]
            parts.append(ticks)
        if not found.irregular:
            return NumberedTicks(parts[0] if parts else Ticks.join(()), numbers)
        parts.append(Ticks.of(found.irregular))
        numbers = np.concatenate([numbers, np.array(found.irregular_numbers, np.int64)])
        order = np.argsort(numbers, kind="stable")
        return NumberedTicks(Ticks.join(parts)[order], numbers[order])

    def _unusual(self, found: _Found, rows: NDArray[np.int64], texts: Sequence[bytes], first: int) -> None:
        """Reads regular lines with an unusual value one by one."""
        for row in rows:
            number = int(found.numbers[row])
            try:
                tick = line_tick(found.lines[row])
            except MalformedTick:  # a side or time of another form
                self._irregular_line(found, number, texts[number - first].strip())
                continue
            if tick is None:
                self._report.ignored["history"] += 1
            else:
                found.add_ticks(number, (tick,))
