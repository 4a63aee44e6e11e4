"""Ticks → NDJSON tape lines, which ``lines`` reads back without losing a digit.

The lines of a live frame keep the exchange's own messages. If a message would read back as another tick than the one
that was decoded (a field that the protocol does not have, text that is not UTF-8), a message made from the tick
replaces it: a replay must give the same ticks as the live system.
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
from volspike.feeds.messages import ABSENT, SIDES, TAKER_OF_MAKER, DetailedMessage, RawMessage
from volspike.market import MISSING_ID, SECOND_NS, Kind, Side, Tick, Ticks, format_time
from volspike.tape.lines import SIMULATED, is_utf8, read_irregular_line

_BUFFERED_LINES = 4_096


class Sink(Protocol):
    """A file that takes the bytes of a tape."""

    def write(self, data: bytes, /) -> object:
        """Writes the next bytes."""
        ...

    def close(self) -> object:
        """Closes the file."""
        ...


class DayFigures(NamedTuple):
    """The 24 hour figures of a ticker message, in base and quote currency; NaN if missing.

    A text is the figure in the exchange's JSON and is copied into the line.
    """

    volume: float | str = nan
    low: float | str = nan
    high: float | str = nan


NO_DAY_FIGURES = DayFigures()


class TapeWriter:
    """An NDJSON tape being written, compressed if its name ends in ``.zst`` or ``.gz``.

    The file is ``<name>.part`` until the ``with`` block ends without an error; otherwise it is removed and an existing
    tape stays as it was. ``simulated`` marks the lines as made by a simulation.

        with TapeWriter(Path("ticks_BTCUSD_20251206_054535.ndjson.zst")) as tape:
            tape.write(ticks)
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self.path = Path(path)
        self.simulated = simulated
        self.ticks = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._sink = _open(self._part, self.path.name)
        self._lines: list[bytes] = []

    def write(self, ticks: Iterable[Tick]) -> None:
        """Writes ticks, each with a ``raw`` message in the form of Coinbase Exchange."""
        for tick in ticks:
            self.write_tick(tick)

    def write_tick(self, tick: Tick, *, raw: bytes | None = None, day: DayFigures = NO_DAY_FIGURES) -> None:
        """Writes one tick; ``raw`` is the exchange's own message (a JSON object) if there is one."""
        self._lines.append(tape_line(tick, raw=raw, day=day, simulated=self.simulated))
        self.ticks += 1
        if len(self._lines) >= _BUFFERED_LINES:
            self._write_lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_lines()
            self._sink.close()
            if kind is None:
                self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def _write_lines(self) -> None:
        self._sink.write(b"".join(self._lines))
        self._lines.clear()


def write_ndjson(parts: Iterable[Ticks], path: Path, *, simulated: bool = False) -> int:
    """Writes chunks of ticks as one NDJSON tape and returns their number; if it fails, an existing file stays."""
    with TapeWriter(path, simulated=simulated) as tape:
        for part in parts:
            tape.write(part)
    return tape.ticks


def tape_line(
    tick: Tick,
    *,
    raw: bytes | None = None,
    day: DayFigures = NO_DAY_FIGURES,
    simulated: bool = False,
    fields: RawMessage | None = None,
) -> bytes:
    """One line of a tape, its line end included.

    ``time`` and ``sequence`` are written if the tick has them, because ``raw`` may lack them: an Advanced Trade ticker
    has neither. They are left out if ``fields``, which a reader finds in ``raw``, has them. Quotes of a trade are null.
    """
    message = raw if raw is not None else _exchange_message(tick)
    if b"\n" in message:
        message = msgspec.json.format(message, indent=-1)
    is_trade = tick.kind == Kind.TRADE
    head = (
        f'{{"timestamp":"{_instant(tick.received)}","product_id":{_text(tick.product_id)},"price":{_number(tick.price)}'
        f',"volume_24h":{_figure(day.volume)},"low_24h":{_figure(day.low)},"high_24h":{_figure(day.high)}'
        f',"best_bid":{_number(nan if is_trade else tick.best_bid)}'
        f',"best_ask":{_number(nan if is_trade else tick.best_ask)}'
    )
    if tick.time != tick.received and not (fields is not None and fields.time):
        head += f',"time":"{_instant(tick.time)}"'
    if tick.sequence != MISSING_ID and (fields is None or fields.sequence == MISSING_ID):
        head += f',"sequence":{tick.sequence}'
    if simulated:
        head += f',"source":"{SIMULATED}"'
    return b'%b,"raw":%b}\n' % (head.encode(), message)


def _exchange_message(tick: Tick) -> bytes:
    """The tick as a Coinbase Exchange message: a ``ticker`` with the taker's side, or a ``match`` with the maker's."""
    if tick.kind == Kind.TRADE:
        text = f'{{"type":"match","product_id":{_text(tick.product_id)},"price":{_number(tick.price)}'
        numbers = {"size": tick.last_size}
        side = Side(-tick.side)
    else:
        text = f'{{"type":"ticker","product_id":{_text(tick.product_id)},"price":{_number(tick.price)}'
        numbers = {
            "best_bid": tick.best_bid,
            "best_bid_size": tick.bid_size,
            "best_ask": tick.best_ask,
            "best_ask_size": tick.ask_size,
            "last_size": tick.last_size,
        }
        side = tick.side
    text += "".join(f',"{name}":{_number(value)}' for name, value in numbers.items() if not isnan(value))
    if side != Side.UNKNOWN:
        text += f',"side":"{side.name.lower()}"'
    if tick.trade_id != MISSING_ID:
        text += f',"trade_id":{tick.trade_id}'
    return (text + "}").encode()


def _number(value: float) -> str:
    """A JSON string of the shortest decimal that reads back the same, without an exponent; null for NaN."""
    if isnan(value):
        return "null"
    text = repr(value)
    if "e" in text:
        text = np.format_float_positional(value, trim="-")
    return f'"{text.removesuffix(".0")}"'


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else _number(value)


def _instant(ns: int) -> str:
    """As ``format_time``, but the second is cached: there are hundreds of ticks a second, and calendars are slow."""
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


def _open(part: Path, name: str) -> Sink:
    if name.endswith(".zst"):
        return _Zstd(part)
    if name.endswith(".gz"):
        return gzip.open(part, "wb", compresslevel=6)
    return part.open("wb")


class _Zstd:
    """A Zstandard file being written; Arrow's stream does not close its file itself."""

    def __init__(self, part: Path) -> None:
        self._file = pa.OSFile(str(part), "wb")
        self._stream = pa.CompressedOutputStream(self._file, "zstd")

    def write(self, data: bytes) -> None:
        self._stream.write(data)

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
        return _checked_line(tick, text, simulated)
    return tape_line(tick, raw=text, day=_day(fields), simulated=simulated, fields=fields)


def _checked_line(tick: Tick, text: bytes, simulated: bool) -> bytes:
    """The line with the exchange's message if a reader finds the same tick in it; otherwise with a message of ours."""
    line = tape_line(tick, raw=text, simulated=simulated)
    try:
        read = read_irregular_line(line.rstrip(b"\n")).ticks
    except MalformedTick:
        read = ()
    # compared as text, because NaN is not equal to itself
    return line if repr(read) == repr((tick,)) else tape_line(tick, simulated=simulated)


def _agrees(fields: DetailedMessage, tick: Tick) -> bool:
    """Whether every value that a reader takes from ``fields`` is that of ``tick``."""
    if (fields.trade_id, fields.sequence) != (tick.trade_id, tick.sequence):
        return False
    if tick.kind == Kind.TRADE:
        is_trade = fields.is_trade and _same(fields.size, tick.last_size)
        return is_trade and TAKER_OF_MAKER.get(fields.side) == tick.side
    if fields.is_trade or fields.is_history:
        return False
    bid = _is_quoted(tick.best_bid, tick.bid_size, fields.best_bid, fields.best_bid_quantity, fields.best_bid_size)
    ask = _is_quoted(tick.best_ask, tick.ask_size, fields.best_ask, fields.best_ask_quantity, fields.best_ask_size)
    return bid and ask and _same(fields.last_size, tick.last_size) and SIDES.get(fields.side) == tick.side


def _is_quoted(price: float, size: float, quote: float, quantity: float, other: float) -> bool:
    """One side of the book; a reader takes the size from ``quantity`` or, if that is missing, from ``other``."""
    if isnan(price):
        return isnan(quote) or quote == 0.0
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
