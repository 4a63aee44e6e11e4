"""Damaged CSV files: every row is either what a slow, obvious reader makes of its line, or rejected."""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tape.foreign_files import CSV_FILES, trades
from volspike.errors import UnreadableFile
from volspike.market import Side
from volspike.tape.importers import TradeFileReport, read_trades

NOW = 1_800_000_000 * 10**9
NUMBER = re.compile(r"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*", re.ASCII)
WHOLE = re.compile(r"[ \t]*-?\d+[ \t]*", re.ASCII)
SPECIAL = b'",\n\r\0\xff -.+e0159Tabcxyz\t;\xef\xbb\xbf'

COLUMNS = {
    "binance spot aggTrades": (8, {"trade_id": 0, "price": 1, "size": 2, "time": 5, "maker": 6}),
    "bybit derivatives": (10, {"time": 0, "symbol": 1, "side": 2, "size": 3, "price": 4}),
    "kraken": (3, {"time": 0, "price": 1, "size": 2}),
}


class Row(NamedTuple):
    """The values of a tick that a row states."""

    time: int
    price: float
    size: float
    side: int
    trade_id: int


def reference_row(line: bytes, layout: str) -> Row | None:
    """The tick of a line, or None if the line has to be rejected."""
    width, columns = COLUMNS[layout]
    try:
        text = line.decode("utf-8", "surrogateescape")
        if "\r" in text:
            return None
        values = next(csv.reader(io.StringIO(text), strict=True))
    except (csv.Error, StopIteration):
        return None
    if len(values) != width:
        return None
    at = {name: values[place] for name, place in columns.items()}
    if not (NUMBER.fullmatch(at["price"]) and NUMBER.fullmatch(at["size"]) and NUMBER.fullmatch(at["time"])):
        return None
    price, size, stamp = float(at["price"]), float(at["size"]), Decimal(at["time"].strip())
    if stamp.adjusted() > 20:
        return None
    unit = 10**9 if abs(stamp) < 10**11 else 10**6 if abs(stamp) < 10**14 else 1000 if abs(stamp) < 10**17 else 1
    time = int(stamp * unit)
    is_possible = 0.0 < price < float("inf") and 0.0 <= size < float("inf") and time >= 631_152_000 * 10**9
    if not is_possible or time > NOW + 86_400 * 10**9:
        return None
    if any("\ud800" <= letter <= "\udfff" for letter in at.get("symbol", "")):  # no UTF-8
        return None
    side, trade_id = 0, -1
    if "maker" in at:
        if at["maker"] not in {"True", "true", "TRUE", "1", "False", "false", "FALSE", "0"}:
            return None
        side = int(Side.SELL if at["maker"].lower() in {"true", "1"} else Side.BUY)
    if "side" in at:
        found = {"buy": 1, "b": 1, "sell": -1, "s": -1, "bid": 1, "ask": -1}.get(at["side"].strip().lower())
        if found is None:
            return None
        side = found
    if "trade_id" in at:
        if not WHOLE.fullmatch(at["trade_id"]) or not -1 <= int(at["trade_id"]) < 2**63:
            return None
        trade_id = int(at["trade_id"])
    return Row(time, price, size, side, trade_id)


@st.composite
def damaged(draw: st.DrawFn, text: bytes, first: int) -> bytes:
    """The text with a few bytes changed, inserted or removed after the place ``first``."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(first, len(text) - 1))
        kind = draw(st.sampled_from(["replace", "insert", "remove", "truncate", "repeat"]))
        if kind == "replace":
            text = text[:place] + bytes([draw(st.sampled_from(SPECIAL))]) + text[place + 1 :]
        elif kind == "insert":
            added = bytes(draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4)))
            text = text[:place] + added + text[place:]
        elif kind == "remove":
            text = text[:place] + text[place + draw(st.integers(1, 30)) :]
        elif kind == "truncate":
            text = text[: max(place, len(text) // 2)]
        else:
            text = text[:place] + text[max(first, place - draw(st.integers(1, 60))) :]
        if len(text) <= first + 1:
            break
    return text


def expected_rows(text: bytes, layout: str, has_header: bool) -> tuple[list[Row], set[int]]:
    """The rows of the slow reader, and the numbers of the lines that it rejects."""
    rows, rejected = [], set()
    lines = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        if (number == 1 and has_header) or not line.strip():
            continue
        row = reference_row(line.rstrip(b"\r"), layout)
        if row is None:
            rejected.add(number)
        else:
            rows.append(row)
    return rows, rejected


@pytest.mark.parametrize("layout", COLUMNS)
@settings(max_examples=100)
@given(data=st.data(), block_bytes=st.sampled_from([150, 700, 1 << 20]))
def test_damage_loses_only_the_rows_that_it_hits(layout: str, data: st.DataObject, block_bytes: int) -> None:
    """No damage raises anything but a refusal, changes another row, or drops a row without counting it."""
    name, write = CSV_FILES[layout]
    product = "bybit-linear:BTC-USDT"
    text = write(trades(25))
    first = text.index(b"\n") + 1
    text = data.draw(damaged(text, first))
    rows, rejected = expected_rows(text, layout, has_header=layout == "bybit derivatives")
    report = TradeFileReport()
    parts = read_trades(io.BytesIO(text), name, product, report=report, block_bytes=block_bytes, clock=lambda: NOW)
    found: list[Row] = []
    refusal = ""
    try:
        for ticks in parts:
            found += [Row(tick.time, tick.price, tick.last_size, int(tick.side), tick.trade_id) for tick in ticks]
    except UnreadableFile as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        assert "rows are of" in refusal or len(rows) <= len(rejected), refusal
        return
    assert found == rows
    assert {rejection.line for rejection in report.rejections} == rejected
    assert report.rows == len(rows) + len(rejected)
