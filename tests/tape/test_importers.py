"""Files of exchanges and other programs → ticks: columns, units, sides, damaged rows."""

from __future__ import annotations

import io
from math import isnan

import msgspec
import pytest

from tests.tape.foreign_files import CSV_FILES, NO_ID, NO_SIDE, START, trade, trades
from volspike.errors import UnreadableFile
from volspike.market import MISSING_ID, Kind, Side, Tick, Ticks
from volspike.tape.importers import FORMATS, TradeFileReport, read_trades


class Rejected:
    """Keeps rejected rows in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, bytes]] = []

    def add(self, line: int, reason: str, text: bytes) -> None:
        self.lines.append((line, reason, text))


def read(
    text: bytes, name: str, product_id: str | None = "binance:BTC-USDT", block_bytes: int = 1 << 20
) -> tuple[Ticks, TradeFileReport, Rejected]:
    """The ticks of a text, the report, and the rejected rows."""
    report, rejected = TradeFileReport(), Rejected()
    parts = read_trades(io.BytesIO(text), name, product_id, report=report, rejected=rejected, block_bytes=block_bytes)
    return Ticks.join(list(parts)), report, rejected


def as_stated(tick: Tick, layout: str) -> Tick:
    """The tick without the values that a layout lacks."""
    return msgspec.structs.replace(
        tick,
        trade_id=MISSING_ID if layout in NO_ID else tick.trade_id,
        side=Side.UNKNOWN if layout in NO_SIDE else tick.side,
    )


def same(ticks: Ticks, expected: list[Tick]) -> bool:
    """Whether the ticks are the expected ones; NaN equals NaN."""
    return list(map(repr, ticks)) == list(map(repr, expected))


@pytest.mark.parametrize("block_bytes", [200, 1 << 20])
@pytest.mark.parametrize("layout", CSV_FILES)
def test_every_layout_gives_the_same_ticks(layout: str, block_bytes: int) -> None:
    """The same trades written in each format are the same ticks, whatever the size of a block."""
    name, write = CSV_FILES[layout]
    expected = [as_stated(tick, layout) for tick in trades(60)]
    ticks, report, rejected = read(write(trades(60)), name, block_bytes=block_bytes)
    assert same(ticks, expected)
    assert (report.rows, report.ticks, report.rejected, rejected.lines) == (60, 60, 0, [])
    assert (report.first_time, report.last_time) == (START, trade(59).time)


def test_float_seconds_are_exact() -> None:
    """Decimal seconds keep all their digits, also where a binary float would not."""
    rows = b"timestamp,symbol,side,size,price,tickDirection,trdMatchID\n" + b"".join(
        b"1585180700.%s,BTCUSD,Buy,1,6500,PlusTick,x\n" % digits
        for digits in (b"0647", b"123456789", b"1", b"06470001")
    )
    ticks, _, _ = read(rows, "bybit", "bybit-inverse:BTC-USD")
    assert [int(time) % 10**9 for time in ticks.time] == [64_700_000, 123_456_789, 100_000_000, 64_700_010]


def test_a_unit_that_changes_within_a_file_is_read_row_by_row() -> None:
    """Milliseconds followed by microseconds are the same clock, and the report names both units."""
    rows = b"".join(
        b"%d,100,1,5,%d,True,True\n" % (place, (START + place * 10**9) // (10**6 if place < 3 else 1000))
        for place in range(6)
    )
    ticks, report, _ = read(rows, "binance")
    assert [int(time) - START for time in ticks.time] == [place * 10**9 for place in range(6)]
    assert set(report.units) == {"ms", "µs"} or set(report.units) == {"ms, µs"}


def test_a_buyer_who_is_the_maker_means_that_the_taker_sold() -> None:
    """``isBuyerMaker`` true is a sale of the taker."""
    ticks, _, _ = read(b"1,100,1,5,1759536000000,True,True\n2,100,1,5,1759536000000,False,True\n", "binance")
    assert list(ticks.side) == [Side.SELL, Side.BUY]


def test_tardis_quotes_are_ticker_messages_with_the_mid_price() -> None:
    """A quote has the mid of bid and ask as its price, and the local time as its time of receipt."""
    text = (
        b"exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
        b"coinbase,BTC-USD,1759536000000000,1759536000012345,2.5,101,100,1.5\n"
    )
    ticks, _, _ = read(text, "tardis", None)
    tick = ticks.tick(0)
    assert (tick.product_id, tick.kind, tick.price) == ("BTC-USD", Kind.TICKER, 100.5)
    assert (tick.best_bid, tick.bid_size, tick.best_ask, tick.ask_size) == (100.0, 1.5, 101.0, 2.5)
    assert (tick.time, tick.received) == (START, START + 12_345_000)
    assert isnan(tick.last_size)


DAMAGE = {
    "a truncated line": (b"1017,100,1,5", "expected 7 columns, got 4"),
    "a text in the price": (b"1017,abc,1,5,1759536000000,True,True", "column 2 (price): expected a number, got 'abc'"),
    "an empty price": (b"1017,,1,5,1759536000000,True,True", "column 2 (price): a value is missing"),
    "an empty time": (b"1017,100,1,5,,True,True", "column 5 (time): a value is missing"),
    "a price of 0": (b"1017,0,1,5,1759536000000,True,True", "column 2 (price): expected a finite price"),
    "a negative price": (b"1017,-5,1,5,1759536000000,True,True", "column 2 (price): expected a finite price"),
    "no number as the price": (
        b"1017,nan,1,5,1759536000000,True,True",
        "column 2 (price): expected a finite price",
    ),
    "a negative size": (
        b"1017,100,-1,5,1759536000000,True,True",
        "column 3 (last_size): expected a finite number",
    ),
    "no number as the size": (b"1017,100,nan,5,1759536000000,True,True", "column 3 (last_size): expected a finite"),
    "a time in 1970": (b"1017,100,1,5,1759536,True,True", "column 5 (time): no time between 1990"),
    "a time in the future": (
        b"1017,100,1,5,4759536000000,True,True",
        "column 5 (time): no time between 1990",
    ),
    "a time beyond int64": (
        b"1017,100,1,5,99999999999,True,True",
        "column 5 (time): no time between 1990",
    ),
    "a header": (
        b"id,price,qty,quote_qty,time,is_buyer_maker,x",
        "column 1 (trade_id): expected a whole number",
    ),
    "another side": (
        b"1017,100,1,5,1759536000000,yes,True",
        "column 6 (buyer_is_maker): expected True or False",
    ),
    "an open quote": (b'1017,"100,1,5,1759536000000,True,True', "a quote is not closed"),
    "a quote in a value": (b'1017,"10"0,1,5,1759536000000,True,True', "a quote is not closed"),
    "a zero byte": (b"1017,1\x0000,1,5,1759536000000,True,True", "column 2 (price): expected a number"),
    "no UTF-8": (b"1017,1\xff0,1,5,1759536000000,True,True", "column 2 (price): expected a number"),
    "a negative id": (b"-17,100,1,5,1759536000000,True,True", "column 1 (trade_id): expected an id of 0 or more"),
}


@pytest.mark.parametrize("block_bytes", [200, 1 << 20])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_rejected_with_its_line_and_the_others_remain(damage: str, block_bytes: int) -> None:
    """Only the damaged row is lost, and it is reported with number, reason and text."""
    line, reason = DAMAGE[damage]
    good = CSV_FILES["binance spot trades"][1](trades(40)).splitlines(keepends=True)
    text = b"".join([*good[:17], line + b"\n", *good[17:]])
    ticks, report, rejected = read(text, "binance", block_bytes=block_bytes)
    assert same(ticks, trades(40))
    assert (report.rows, report.rejected) == (41, 1)
    [(number, stated, kept)] = rejected.lines
    assert (number, kept) == (18, line)
    assert stated.startswith(reason)


@pytest.mark.parametrize("form", ["CRLF", "byte order mark", "blank lines", "quotes", "no last line end"])
def test_the_form_of_the_text_changes_no_tick(form: str) -> None:
    """Line ends, a byte order mark, blank lines and quotes have no effect."""
    text = CSV_FILES["tardis"][1](trades(30))
    changed = {
        "CRLF": text.replace(b"\n", b"\r\n"),
        "byte order mark": b"\xef\xbb\xbf" + text,
        "blank lines": b"\n" + text.replace(b"\n", b"\n\n") + b"  \n",
        "quotes": b"\n".join(b",".join(b'"%s"' % value for value in line.split(b",")) for line in text.splitlines()),
        "no last line end": text.rstrip(b"\n"),
    }[form]
    for block_bytes in (150, 1 << 20):
        ticks, report, _ = read(changed, "tardis", None, block_bytes)
        assert same(ticks, trades(30))
        assert (report.rows, report.rejected) == (30, 0)


def test_a_file_whose_rows_are_mostly_damaged_is_refused() -> None:
    """More damaged rows than valid ones mean another format; the first damaged line is named."""
    good = CSV_FILES["binance spot trades"][1](trades(3))
    with pytest.raises(UnreadableFile, match=r"the file:4: expected 7 columns, got 1; 5 of 8 rows do not fit"):
        read(good + b"x\n" * 5, "binance")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no row in the file"),
        (b"agg_trade_id,price,quantity,first,last,transact_time,is_buyer_maker\n", "no row in the file"),
        (b"a,b,c\n1,2,3\n", "not the columns of binance.* its first line is 'a, b, c'"),
        (b"\x00\x01\x02binary", "no CSV text"),
    ],
)
def test_a_file_of_another_form_is_refused(text: bytes, message: str) -> None:
    """Empty files, other columns and binary data are refused with what the file has."""
    with pytest.raises(UnreadableFile, match=message):
        read(text, "binance")


def test_rows_without_a_product_need_one() -> None:
    """Without a column for the product, it has to be named."""
    with pytest.raises(UnreadableFile, match="neither its rows nor its name state the product"):
        read(CSV_FILES["binance spot trades"][1](trades(3)), "binance", None)


def test_formats_are_known_by_their_names() -> None:
    """The table is keyed by the name of the format."""
    assert all(name == file_format.name for name, file_format in FORMATS.items())
