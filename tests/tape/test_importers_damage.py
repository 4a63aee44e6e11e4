"""Damaged files: every row is either what a slow, obvious reader makes of it, or rejected; no error is a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tape.foreign_files import CSV_FILES, ccxt_trade, cryptofeed_table, nautilus_table, trades
from volspike.errors import UnreadableFile, VolspikeError
from volspike.market import Side
from volspike.tape.import_tapes import ImportedFile, ImportOptions, import_files
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


def _table_bytes(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _zipped(text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-aggTrades-2025-10-04.csv", text)
    return file.getvalue()


_AGG = CSV_FILES["binance spot aggTrades"][1](trades(300))
CONTENTS: dict[str, bytes] = {
    "BTCUSDT-aggTrades-2025-10-04.csv": _AGG,
    "BTCUSDT-aggTrades-2025-10-04.csv.gz": gzip.compress(_AGG),
    "BTCUSDT-aggTrades-2025-10-04.csv.zst": pa.compress(_AGG, "zstd", asbytes=True),
    "BTCUSDT-aggTrades-2025-10-04.csv.xz": lzma.compress(_AGG),
    "BTCUSDT-aggTrades-2025-10-04.zip": _zipped(_AGG),
    "binance_trades_2025-10-04_BTCUSDT.csv": CSV_FILES["tardis"][1](trades(60)),
    "cryptofeed.parquet": _table_bytes(cryptofeed_table(trades(60))),
    "nautilus.parquet": _table_bytes(nautilus_table(trades(60), "16 bytes")),
    "list.json": json.dumps([ccxt_trade(tick) for tick in trades(30)]).encode(),
    "lines.json": b"\n".join(json.dumps(ccxt_trade(tick)).encode() for tick in trades(30)),
}


@pytest.mark.parametrize("name", CONTENTS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_imported_or_refused_in_one_line(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Whatever is damaged, and in whatever format: a tape with valid ticks, or one line, and nothing is left behind."""
    content = data.draw(damaged(CONTENTS[name], data.draw(st.sampled_from([0, len(CONTENTS[name]) // 2]))))
    with TemporaryDirectory(dir=tmp_path) as folder:
        path, out = Path(folder) / name, Path(folder) / "out"
        path.write_bytes(content)
        product = "binance:BTC-USDT" if name.endswith(".json") else None
        results, refusal = list[ImportedFile](), ""
        try:
            results = list(import_files([path], out, ImportOptions(product_id=product), clock=lambda: NOW))
        except VolspikeError as error:
            refusal = str(error)
        if refusal:
            assert "\n" not in refusal
            assert not list(out.glob("*"))
            return
        for result in results:
            assert result.report is not None
            prices = np.asarray(pq.read_table(result.tape).column("price"))
            assert len(prices) == result.report.ticks - result.duplicates
            assert ((prices > 0) & np.isfinite(prices)).all()
        assert {file.suffix for file in out.iterdir()} <= {".parquet", ".ndjson"}
