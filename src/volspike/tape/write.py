"""Ticks → an NDJSON tape, one line each, of the shape that ``lines`` reads back without losing a digit.

A frame's ticks as tape lines that keep the exchange's own words.

Where those words would read back as another tick than the one that was decoded (a field that the protocol does
not have, text that is no UTF-8), the tick is told in the writer's words instead: replay = live comes first.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from functools import lru_cache
from math import isnan, nan
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import msgspec
import numpy as np
import pyarrow as pa

from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.fields import SIDES, TAKER_OF_MAKER
from volspike.feeds.raw import ABSENT, DetailedMessage, RawMessage
from volspike.market import MISSING_ID, SECOND_NS, Kind, Side, Tick, Ticks, format_time
from volspike.tape.lines import SIMULATED, is_utf8, read_oddity

_BUFFERED_LINES = 4_096


class Sink(Protocol):
    """Where a tape's bytes go."""

    def write(self, data: bytes, /) -> object:
        """Takes the next bytes."""
        ...

    def flush(self) -> object:
        """Hands on what is held back."""
        ...

    def close(self) -> object:
        """Ends the file."""
        ...


class DayFigures(NamedTuple):
    """The 24 hour figures of a ticker message, in base and quote currency; NaN where not told.

    A text is the figure as the exchange wrote it, in JSON, and stands in the line as it is.
    """

    volume: float | str = nan
    low: float | str = nan
    high: float | str = nan


UNTOLD_DAY = DayFigures()


class TapeWriter:
    """An NDJSON tape being written, compressed if its name ends in ``.zst`` or ``.gz``.

    It grows under ``<name>.part`` and gets its name on a clean end of the ``with`` block; when that fails, the part
    is removed and an existing tape stays what it was. ``simulated`` marks the lines as told by no market.

        with TapeWriter(Path("ticks_BTCUSD_20251206_054535.ndjson.zst")) as tape:
            tape.write(ticks)
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self.path = Path(path)
        self.simulated = simulated
        self.ticks = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._sink = _opened(self._part, self.path.name)
        self._held: list[bytes] = []

    def write(self, ticks: Iterable[Tick]) -> None:
        """Writes many ticks (``Ticks`` or any others), each ``raw`` told in the wording of Coinbase Exchange."""
        for tick in ticks:
            self.write_tick(tick)

    def write_tick(self, tick: Tick, *, raw: bytes | None = None, day: DayFigures = UNTOLD_DAY) -> None:
        """Writes one tick, with the exchange's own words for it (a JSON object) where they are given as ``raw``."""
        self._held.append(tape_line(tick, raw=raw, day=day, simulated=self.simulated))
        self.ticks += 1
        if len(self._held) >= _BUFFERED_LINES:
            self._pass_on()

    def flush(self) -> None:
        """Hands all lines so far to the operating system, for whoever follows the tape."""
        self._pass_on()
        self._sink.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._pass_on()
            self._sink.close()
            if kind is None:
                self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def _pass_on(self) -> None:
        self._sink.write(b"".join(self._held))
        self._held.clear()


def write_ndjson(parts: Iterable[Ticks], path: Path, *, simulated: bool = False) -> int:
    """Writes chunks of ticks as one NDJSON tape; the number of ticks. An existing file stays whole if it fails."""
    with TapeWriter(path, simulated=simulated) as tape:
        for part in parts:
            tape.write(part)
    return tape.ticks


def tape_line(
    tick: Tick,
    *,
    raw: bytes | None = None,
    day: DayFigures = UNTOLD_DAY,
    simulated: bool = False,
    told: RawMessage | None = None,
) -> bytes:
    """One line of a tape, its line end included.

    ``time`` and ``sequence`` stand in the line where the tick tells them, for ``raw`` need not: an Advanced Trade
    ticker has neither. Those that ``told``, which is ``raw`` as a reader finds it, is known to tell are left out.
    A trade tells no quotes, so none are written for it.
    """
    words = raw if raw is not None else _raw(tick)
    if b"\n" in words:
        words = msgspec.json.format(words, indent=-1)
    is_trade = tick.kind == Kind.TRADE
    head = (
        f'{{"timestamp":"{_instant(tick.received)}","product_id":{_text(tick.product_id)},"price":{_number(tick.price)}'
        f',"volume_24h":{_figure(day.volume)},"low_24h":{_figure(day.low)},"high_24h":{_figure(day.high)}'
        f',"best_bid":{_number(nan if is_trade else tick.best_bid)}'
        f',"best_ask":{_number(nan if is_trade else tick.best_ask)}'
    )
    if tick.time != tick.received and not (told is not None and told.time):
        head += f',"time":"{_instant(tick.time)}"'
    if tick.sequence != MISSING_ID and (told is None or told.sequence == MISSING_ID):
        head += f',"sequence":{tick.sequence}'
    if simulated:
        head += f',"source":"{SIMULATED}"'
    return b'%b,"raw":%b}\n' % (head.encode(), words)


def _raw(tick: Tick) -> bytes:
    """What Coinbase Exchange would have said: a ``ticker`` with the taker's side, or a ``match`` with the maker's."""
    if tick.kind == Kind.TRADE:
        words = f'{{"type":"match","product_id":{_text(tick.product_id)},"price":{_number(tick.price)}'
        told = {"size": tick.last_size}
        side = Side(-tick.side)
    else:
        words = f'{{"type":"ticker","product_id":{_text(tick.product_id)},"price":{_number(tick.price)}'
        told = {
            "best_bid": tick.best_bid,
            "best_bid_size": tick.bid_size,
            "best_ask": tick.best_ask,
            "best_ask_size": tick.ask_size,
            "last_size": tick.last_size,
        }
        side = tick.side
    words += "".join(f',"{name}":{_number(value)}' for name, value in told.items() if not isnan(value))
    if side != Side.UNKNOWN:
        words += f',"side":"{side.name.lower()}"'
    if tick.trade_id != MISSING_ID:
        words += f',"trade_id":{tick.trade_id}'
    return (words + "}").encode()


def _number(value: float) -> str:
    """A JSON string of the shortest decimal that reads back the same, never with an exponent; null for NaN."""
    if isnan(value):
        return "null"
    text = repr(value)
    if "e" in text:
        text = np.format_float_positional(value, trim="-")
    return f'"{text.removesuffix(".0")}"'


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else _number(value)


def _instant(ns: int) -> str:
    """As ``instant``; ticks come by the hundred in the same second, and calendars are slow."""
    second, fraction = divmod(ns, SECOND_NS)
    if fraction == 0:
        return _second(second) + "Z"
    return f"{_second(second)}.{fraction:09d}".rstrip("0") + "Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return format_time(second * SECOND_NS).removesuffix("Z")


@lru_cache(maxsize=1024)
def _text(word: str) -> str:
    return msgspec.json.encode(word).decode()


def _opened(part: Path, name: str) -> Sink:
    if name.endswith(".zst"):
        return _Zstd(part)
    if name.endswith(".gz"):
        return gzip.open(part, "wb", compresslevel=6)
    return part.open("wb")


class _Zstd:
    """A Zstandard file being written; Arrow's stream closes the file beneath it only when asked to."""

    def __init__(self, part: Path) -> None:
        self._file = pa.OSFile(str(part), "wb")
        self._stream = pa.CompressedOutputStream(self._file, "zstd")

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()
        self._file.flush()

    def close(self) -> None:
        self._stream.close()
        self._file.close()


def frame_lines(frame: Frame, *, simulated: bool = False) -> list[bytes]:
    """One tape line for each of ``frame.ticks``, in their order, with the exchange's own message for it.

    ``read_ticks`` reads exactly these ticks from them. ``frame.history`` is not recorded.
    """
    if len(frame.messages) != len(frame.ticks):  # made by no codec
        return [tape_line(tick, simulated=simulated) for tick in frame.ticks]
    pairs = zip(frame.ticks, frame.messages, strict=True)
    return [_message_line(tick, bytes(text).strip(), fields, simulated) for tick, (text, fields) in pairs]


def _message_line(tick: Tick, text: bytes, fields: DetailedMessage | None, simulated: bool) -> bytes:
    if not is_utf8(text):
        return tape_line(tick, simulated=simulated)
    if fields is None or not _agrees(fields, tick):
        return _proven(tick, text, simulated)
    return tape_line(tick, raw=text, day=_day(fields), simulated=simulated, told=fields)


def _proven(tick: Tick, words: bytes, simulated: bool) -> bytes:
    """The line with the exchange's words, if a reader is sure to find the tick in it; else in our own."""
    line = tape_line(tick, raw=words, simulated=simulated)
    try:
        read = read_oddity(line.rstrip(b"\n")).ticks
    except MalformedTick:
        read = ()
    # compared as text: NaN, what was not told, is not equal to itself
    return line if repr(read) == repr((tick,)) else tape_line(tick, simulated=simulated)


def _agrees(told: DetailedMessage, tick: Tick) -> bool:
    """Whether everything that a reader takes from ``told`` is what ``tick`` says."""
    if tick.kind == Kind.TRADE:
        is_same = told.is_trade and _same(told.size, tick.last_size) and TAKER_OF_MAKER.get(told.side) == tick.side
    else:
        is_same = (
            not told.is_trade
            and not told.is_history
            and _same(told.last_size, tick.last_size)
            and SIDES.get(told.side) == tick.side
            and _is_quoted(tick.best_bid, tick.bid_size, told.best_bid, told.best_bid_quantity, told.best_bid_size)
            and _is_quoted(tick.best_ask, tick.ask_size, told.best_ask, told.best_ask_quantity, told.best_ask_size)
        )
    return is_same and told.trade_id == tick.trade_id and told.sequence == tick.sequence


def _is_quoted(price: float, size: float, told: float, quantity: float, other: float) -> bool:
    """One side of the book; a reader takes the size from ``quantity`` and, where that is not told, from the other."""
    if isnan(price):
        return isnan(told) or told == 0.0
    return _same(other if isnan(quantity) else quantity, size)


def _same(left: float, right: float) -> bool:
    return left == right or (isnan(left) and isnan(right))


def _day(fields: DetailedMessage) -> DayFigures:
    """The 24 hour figures, verbatim."""
    return DayFigures(
        _verbatim(fields.volume_24h, fields.volume_24_h),
        _verbatim(fields.low_24h, fields.low_24_h),
        _verbatim(fields.high_24h, fields.high_24_h),
    )


def _verbatim(exchange: msgspec.Raw, advanced_trade: msgspec.Raw) -> str:
    return bytes(advanced_trade if exchange is ABSENT else exchange).decode()
