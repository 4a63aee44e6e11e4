"""Import of files as tapes: recognition, products, order, duplicates, missing ids, repetition."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tape.foreign_files import (
    CSV_FILES,
    FILE_NAMES,
    NAUTILUS_VERSIONS,
    NO_ID,
    NO_SIDE,
    PRODUCTS,
    START,
    ccxt_trade,
    cryptofeed_csv,
    cryptofeed_table,
    nautilus_table,
    trade,
    trades,
)
from volspike.errors import UnreadableFile, UsageError, VolspikeError
from volspike.market import MISSING_ID, SECOND_NS, Cause, Kind, Side, Tick, Ticks, format_time
from volspike.tape import read_ticks
from volspike.tape.import_tapes import ImportedFile, ImportOptions, import_files, imported_facts, read_columns
from volspike.tape.ledger import Ledger, read_ledger

AGG = CSV_FILES["binance spot aggTrades"][1]
AGG_NAME = FILE_NAMES["binance spot aggTrades"]


def imported(path: Path, folder: Path, **options: object) -> ImportedFile:
    """The result of importing one file."""
    [result] = import_files([path], folder, ImportOptions(**options))  # type: ignore[arg-type]
    return result


def ticks_of(path: Path) -> list[Tick]:
    """The ticks that ``replay`` reads."""
    return list(Ticks.join(list(read_ticks(path))))


def same(ticks: Sequence[Tick], expected: Sequence[Tick]) -> bool:
    """Whether the ticks are the expected ones; NaN equals NaN."""
    return list(map(repr, ticks)) == list(map(repr, expected))


def of_layout(tick: Tick, layout: str) -> Tick:
    """The tick as a file of a layout states it."""
    return msgspec.structs.replace(
        tick,
        product_id=PRODUCTS[layout],
        trade_id=MISSING_ID if layout in NO_ID else tick.trade_id,
        side=Side.UNKNOWN if layout in NO_SIDE else tick.side,
    )


@pytest.mark.parametrize("layout", FILE_NAMES)
def test_a_file_is_recognised_by_its_columns_and_its_name(tmp_path: Path, layout: str) -> None:
    """Without an option, format, venue, product and every value are those of the file."""
    path = tmp_path / FILE_NAMES[layout]
    path.write_bytes(CSV_FILES[layout][1](trades(50)))
    result = imported(path, tmp_path / "out")
    assert result.format_name == CSV_FILES[layout][0]
    assert same(ticks_of(result.tape), [of_layout(tick, layout) for tick in trades(50)])


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst", "zip"])
def test_compressed_files_are_read(tmp_path: Path, packing: str) -> None:
    """The compression is recognised by the content."""
    text = AGG(trades(30))
    path = tmp_path / f"{AGG_NAME}.{packing}"
    if packing == "zip":
        path = tmp_path / AGG_NAME.replace(".csv", ".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(AGG_NAME, text)
    else:
        packers: dict[str, Callable[[bytes], bytes]] = {
            "gz": gzip.compress,
            "bz2": bz2.compress,
            "xz": lzma.compress,
            "zst": partial(pa.compress, codec="zstd", asbytes=True),
        }
        path.write_bytes(packers[packing](text))
    result = imported(path, tmp_path / "out")
    assert result.tape.name == "BTCUSDT-aggTrades-2025-10-04.parquet"
    assert same(ticks_of(result.tape), trades(30))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_of_cryptofeed_are_read(tmp_path: Path, form: str) -> None:
    """Float seconds, in text or binary, are exact to the microsecond."""
    path = tmp_path / f"trades.{form}"
    if form == "csv":
        path.write_bytes(cryptofeed_csv(trades(40)))
    else:
        pq.write_table(cryptofeed_table(trades(40)), path)
    result = imported(path, tmp_path / "out")
    assert result.format_name == "cryptofeed"
    assert same(ticks_of(result.tape), trades(40))


@pytest.mark.parametrize("version", NAUTILUS_VERSIONS)
def test_catalogues_of_nautilus_are_read(tmp_path: Path, version: str) -> None:
    """Fixed-point numbers of every version become the prices that were written."""
    path = tmp_path / "part-0.parquet"
    pq.write_table(nautilus_table(trades(40), version), path)
    result = imported(path, tmp_path / "out")
    assert result.format_name == "nautilus"
    assert same(ticks_of(result.tape), trades(40))


def test_quotes_of_nautilus_are_ticker_messages(tmp_path: Path) -> None:
    """Bid and ask of 8 bytes are read with nine decimals; the price is their mid."""
    raw = {
        "bid_price": 100_000_000_000,
        "ask_price": 101_000_000_000,
        "bid_size": 1_500_000_000,
        "ask_size": 250_000_000,
    }
    columns = {name: pa.array([value.to_bytes(8, "little")] * 2, pa.binary(8)) for name, value in raw.items()}
    times = pa.array([START, START + SECOND_NS], pa.uint64())
    table = pa.table({**columns, "ts_event": times, "ts_init": times})
    metadata = {"instrument_id": "BTCUSDT-PERP.BINANCE", "price_precision": "1", "size_precision": "3"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "quotes.parquet")
    first, _ = ticks_of(imported(tmp_path / "quotes.parquet", tmp_path / "out").tape)
    assert (first.product_id, first.kind, first.price) == ("binance-um:BTC-USDT-PERP", Kind.TICKER, 100.5)
    assert (first.best_bid, first.bid_size, first.best_ask, first.ask_size) == (100.0, 1.5, 101.0, 0.25)


def test_columns_of_a_parquet_table_are_named_by_the_user(tmp_path: Path) -> None:
    """A table of another program with its own names, local timestamps and integer prices."""
    stamps = pa.array([START // 1000, START // 1000 + 1_000_000], pa.timestamp("us"))
    pq.write_table(pa.table({"when": stamps, "px": [100, 101]}), tmp_path / "a.parquet")
    options = {"product_id": "kraken:ETH-USD", "columns": read_columns(["time=when,price=px"])}
    result = imported(tmp_path / "a.parquet", tmp_path / "out", **options, timezone="Europe/Berlin")
    assert [(tick.time, tick.price) for tick in ticks_of(result.tape)] == [
        (START - 2 * 3600 * SECOND_NS, 100.0),
        (START - 2 * 3600 * SECOND_NS + SECOND_NS, 101.0),
    ]
    with pytest.raises(UsageError, match=r"--columns time=at: .* has no such column; it has when, px"):
        imported(tmp_path / "a.parquet", tmp_path / "out", columns=read_columns(["time=at,price=px"]))


def test_an_unknown_version_of_nautilus_is_refused_by_column(tmp_path: Path) -> None:
    """A layout that is not known is named, not guessed."""
    table = nautilus_table(trades(4), "16 bytes")
    table = table.set_column(0, "price", pa.array([b"123"] * 4, pa.binary(3)))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UnreadableFile, match=r"column price is fixed_size_binary\[3\], which no known version"):
        imported(tmp_path / "a.parquet", tmp_path / "out")


@pytest.mark.parametrize("form", ["list", "lines", "pretty list"])
def test_trades_of_ccxt_are_read(tmp_path: Path, form: str) -> None:
    """A JSON list and JSON lines are the same trades; the product is named, as ccxt states no venue."""
    rows = [ccxt_trade(tick) for tick in trades(20)]
    text = {
        "list": json.dumps(rows),
        "lines": "\n".join(map(json.dumps, rows)) + "\n",
        "pretty list": json.dumps(rows, indent=2),
    }[form]
    path = tmp_path / "trades.json"
    path.write_text(text)
    result = imported(path, tmp_path / "out", product_id="binance:BTC-USDT")
    assert result.format_name == "ccxt"
    assert same(ticks_of(result.tape), trades(20))
    with pytest.raises(UnreadableFile, match="rows are of BTC/USDT but state no venue: use --product"):
        imported(path, tmp_path / "other")


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    """``--columns`` names columns of the header or numbers, whatever their order, delimiter and names."""
    ticks = trades(20)
    rows = [f"{format_time(tick.time)};{tick.last_size};x;{tick.price}" for tick in ticks]
    expected = [msgspec.structs.replace(tick, side=Side.UNKNOWN, trade_id=MISSING_ID) for tick in ticks]
    (tmp_path / "named.csv").write_text("\n".join(["Zeit;Menge;y;Kurs", *rows]))
    (tmp_path / "numbered.csv").write_text("\n".join(rows))
    for name, columns in (("named", "time=zeit,price=Kurs,size=Menge"), ("numbered", "time=1,price=4,size=2")):
        result = imported(
            tmp_path / f"{name}.csv", tmp_path / "out", product_id="binance:BTC-USDT", columns=read_columns([columns])
        )
        assert same(ticks_of(result.tape), expected)
        assert result.report is not None
        assert result.report.has_header is (name == "named")


def test_usual_names_need_no_option(tmp_path: Path) -> None:
    """A table with usual names is read; one of bitcoincharts is recognised by its name."""
    (tmp_path / "kraken_ETH-USD.csv").write_text(
        "timestamp,price,amount\n1759536000000,4500.5,0.25\n1759536001000,4501,1\n"
    )
    (tmp_path / "bitstampUSD.csv").write_text("1759536000,120000.5,0.25\n1759536001,120001.0,1\n")
    [first, second] = import_files([tmp_path / "kraken_ETH-USD.csv", tmp_path / "bitstampUSD.csv"], tmp_path / "out")
    assert (first.format_name, second.format_name) == ("csv", "bitcoincharts")
    assert [tick.product_id for tick in ticks_of(first.tape)] == ["kraken:ETH-USD"] * 2
    assert [(tick.product_id, tick.price) for tick in ticks_of(second.tape)] == [
        ("bitstamp:BTC-USD", 120000.5),
        ("bitstamp:BTC-USD", 120001.0),
    ]


def test_columns_that_fit_several_formats_are_refused(tmp_path: Path) -> None:
    """Three numbers are a file of Kraken or of bitcoincharts; the option decides."""
    path = tmp_path / "my trades.csv"
    path.write_text("1759536000,120000.5,0.25\n1759536001,120001.0,1\n")
    with pytest.raises(UnreadableFile, match="fit kraken and bitcoincharts; choose one with --format"):
        imported(path, tmp_path / "out")
    result = imported(path, tmp_path / "out", file_format="kraken", product_id="kraken:BTC-USD")
    assert len(ticks_of(result.tape)) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"\n\n", "the file is empty"),
        ("a.csv", b"alpha,beta\n1,2\n", "no known format; its first line is 'alpha, beta'"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is no text"),
        ("a.csv", "time,price\n1,2".encode("utf-16"), "is text in UTF-16"),
        ("a.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("a.zip", b"PK\x03\x04 broken", "the zip archive cannot be read"),
        ("a.json", b"[1, 2", "no JSON list of trades"),
        ("a.json", b'{"timestamp": "2025", "product_id": "BTC-USD", "raw": {}}', "is a tape already"),
        ("a.csv", b"time,price,size\n1759536000,100,1\n", "neither its rows nor its name state the product"),
        ("binance_BTC-USDT.csv", b"time,price\nnot a time,100\n", "rows do not fit the format csv"),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """What cannot be imported is refused with the reason, and leaves nothing in the folder."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFile, match=message) as refusal:
        imported(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    """Unknown formats, products, columns and zones are refused before anything is read."""
    path = tmp_path / AGG_NAME
    path.write_bytes(AGG(trades(3)))
    for options, message in (
        ({"file_format": "excel"}, "--format excel: unknown; choose one of auto, tardis"),
        ({"product_id": "binance:"}, "invalid product"),
        ({"timezone": "Mars/Base"}, "no such time zone"),
        ({"columns": {"time": "t", "price": "p"}}, "has no such column; its first line is 1000, 100.25"),
        ({"columns": {"time": "1", "price": "2"}, "file_format": "okx"}, "--columns describes files of the format csv"),
    ):
        with pytest.raises(UsageError, match=message):
            imported(path, tmp_path / "out", **options)
    for text in ("price=1", "time=1,cost=2", "time=1,price", "time=1,time=2,price=3"):
        with pytest.raises(UsageError, match="--columns"):
            read_columns([text])
    with pytest.raises(UnreadableFile, match="is a folder"):
        imported(tmp_path, tmp_path / "out")


def test_rows_of_another_product_are_refused(tmp_path: Path) -> None:
    """``--product`` never renames rows of another product."""
    path = tmp_path / "a.csv"
    path.write_bytes(CSV_FILES["tardis"][1](trades(3)))
    with pytest.raises(UnreadableFile, match="rows are of BTCUSDT, not of binance:ETH-USDT"):
        imported(path, tmp_path / "out", product_id="binance:ETH-USDT")


def test_several_products_in_a_file_stay_apart(tmp_path: Path) -> None:
    """Rows that state their product keep it."""
    ticks = [trade(place, product_id=("BTC-USD", "binance:ETH-USDT")[place % 2]) for place in range(20)]
    lines = ["exchange,symbol,timestamp,local_timestamp,id,side,price,amount"]
    for tick in ticks:
        venue = "binance" if ":" in tick.product_id else "coinbase"
        symbol = tick.product_id.rpartition(":")[2] if venue == "coinbase" else "ETHUSDT"
        stamp = tick.time // 1000
        side = "buy" if tick.side is Side.BUY else "sell"
        lines.append(f"{venue},{symbol},{stamp},{stamp},{tick.trade_id},{side},{tick.price},{tick.last_size}")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    result = imported(tmp_path / "a.csv", tmp_path / "out")
    assert same(ticks_of(result.tape), ticks)
    assert [product.product_id for product in result.products] == ["BTC-USD", "binance:ETH-USDT"]
    assert [product.missing for product in result.products] == [None, None]  # every second id belongs to the other


def test_a_product_with_its_venue_is_read(tmp_path: Path) -> None:
    """A column of ``venue:product`` needs no ``--product``, and agrees with one; a symbol of ccxt has no venue."""
    ticks = [trade(place, product_id="bitflyer:BTC-JPY") for place in range(20)]
    lines = ["product,time,price,size,side,trade_id"]
    lines += [
        f"bitflyer:BTC-JPY,{format_time(tick.time)},{tick.price},{tick.last_size},{tick.side.name.lower()},{tick.trade_id}"
        for tick in ticks
    ]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    assert same(ticks_of(imported(path, tmp_path / "out").tape), ticks)
    assert same(ticks_of(imported(path, tmp_path / "named", product_id="bitflyer:BTC-JPY").tape), ticks)
    with pytest.raises(UnreadableFile, match="not of bitflyer:ETH-JPY"):
        imported(path, tmp_path / "other", product_id="bitflyer:ETH-JPY")
    with pytest.raises(UnreadableFile, match="not of okx:BTC-JPY"):
        imported(path, tmp_path / "venue", product_id="okx:BTC-JPY")


def test_sizes_of_contracts_are_labelled(tmp_path: Path) -> None:
    """Sizes of inverse futures are kept, and the tape states their unit."""
    path = tmp_path / FILE_NAMES["binance COIN-M trades"]
    path.write_bytes(CSV_FILES["binance COIN-M trades"][1](trades(3)))
    result = imported(path, tmp_path / "out")
    assert result.report is not None
    assert result.report.size_unit == "contracts"
    facts = imported_facts(result.tape)
    assert facts is not None
    assert (facts["size_unit"], facts["format"]) == ("contracts", "binance")


def test_a_second_run_imports_nothing(tmp_path: Path) -> None:
    """The same file with the same options is not read again; a changed one replaces its tape."""
    path, out = tmp_path / AGG_NAME, tmp_path / "out"
    path.write_bytes(AGG(trades(10)))
    first = imported(path, out)
    assert first.report is not None
    assert imported(path, out).report is None
    path.write_bytes(AGG(trades(12)))
    changed = imported(path, out)
    assert (changed.tape, changed.report is None) == (first.tape, False)
    assert len(ticks_of(out)) == 12


def test_files_of_the_same_name_get_two_tapes(tmp_path: Path) -> None:
    """A file never replaces the tape of another one."""
    paths = []
    for venue in ("binance", "okx"):
        (tmp_path / venue).mkdir()
        paths.append(tmp_path / venue / "BTCUSDT.csv")
        rows = "".join(f"175953600{place},100,{len(venue)}\n" for place in range(3))
        paths[-1].write_text(f"time,price,size\n{rows}")
    results = list(import_files(paths, tmp_path / "out"))
    assert [result.tape.name for result in results] == ["BTCUSDT.parquet", "BTCUSDT_2.parquet"]
    assert {tick.product_id for tick in ticks_of(tmp_path / "out")} == {"binance:BTC-USDT", "okx:BTC-USDT"}
    assert [result.report is None for result in import_files(paths, tmp_path / "out")] == [True, True]


def test_an_archive_of_several_files_gives_a_tape_for_each(tmp_path: Path) -> None:
    """Members that are no tables are left out."""
    with zipfile.ZipFile(tmp_path / "Kraken_Trading_History_Q1_2025.zip", "w") as archive:
        archive.writestr("XBTUSD.csv", "1759536000.1234,120000.5,0.25\n1759536001,120001.0,1\n")
        archive.writestr("ETHUSD.csv", "1759536000.5,4500.5,0.25\n1759536001,4501.0,1\n")
        archive.writestr("README.md", "trades")
        archive.writestr("__MACOSX/XBTUSD.csv", "x")
    results = list(import_files([tmp_path / "Kraken_Trading_History_Q1_2025.zip"], tmp_path / "out"))
    assert [result.tape.name for result in results] == ["XBTUSD.parquet", "ETHUSD.parquet"]
    assert [result.products[0].product_id for result in results] == ["kraken:BTC-USD", "kraken:ETH-USD"]
    assert ticks_of(results[0].tape)[0].time == 1_759_536_000_123_400_000


@pytest.mark.parametrize("order", ["newest first", "shuffled", "two files in a row"])
def test_ticks_are_in_time_order(tmp_path: Path, order: str) -> None:
    """Newest-first files are reversed, others sorted; the ticks are those of the ordered file."""
    ticks = [trade(place, step_ns=5 * SECOND_NS) for place in range(400)]
    rows = AGG(ticks).splitlines(keepends=True)
    changed = {
        "newest first": rows[::-1],
        "shuffled": [rows[place * 7 % 400] for place in range(400)],
        "two files in a row": rows[200:] + rows[:200],
    }[order]
    (tmp_path / AGG_NAME).write_bytes(b"".join(changed))
    result = imported(tmp_path / AGG_NAME, tmp_path / "out")
    assert same(ticks_of(result.tape), ticks)
    assert result.order.startswith("newest first" if order == "newest first" else "unsorted")
    assert (result.duplicates, result.products[0].missing) == (0, 0)


def test_duplicates_are_dropped_and_equal_trades_without_an_id_are_kept(tmp_path: Path) -> None:
    """A row that repeats a trade with its id is dropped; trades without ids may be equal."""
    rows = AGG(trades(40)).splitlines(keepends=True)
    (tmp_path / AGG_NAME).write_bytes(b"".join(rows[:30] + rows[20:]))
    result = imported(tmp_path / AGG_NAME, tmp_path / "out")
    assert same(ticks_of(result.tape), trades(40))
    assert (result.duplicates, result.products[0].missing) == (10, 0)
    (tmp_path / "XBTUSD.csv").write_text("1759536000,120000.5,0.25\n" * 3)
    result = imported(tmp_path / "XBTUSD.csv", tmp_path / "out")
    assert len(ticks_of(result.tape)) == 3


def test_missing_ids_become_gaps_of_the_ledger(tmp_path: Path) -> None:
    """A jump of the id is a gap between the trades around it, written once."""
    rows = AGG(trades(40)).splitlines(keepends=True)
    path = tmp_path / AGG_NAME
    path.write_bytes(b"".join(rows[:10] + rows[15:30] + rows[31:]))
    result = imported(path, tmp_path / "out")
    gaps = Ledger.read(tmp_path / "out")
    assert [(gap.start, gap.end, gap.lost, gap.cause) for gap in gaps] == [
        (trade(9).time, trade(15).time, 5, Cause.HISTORY),
        (trade(29).time, trade(31).time, 1, Cause.HISTORY),
    ]
    assert result.products[0].missing == 6
    result.tape.unlink()
    imported(path, tmp_path / "out")
    assert len(Ledger.read(tmp_path / "out")) == 2


def test_files_without_ids_are_marked_as_unverifiable(tmp_path: Path) -> None:
    """Where no missing trade can be noticed, the ledger says so once, and no row counts as incomplete."""
    path = tmp_path / FILE_NAMES["kraken"]
    path.write_bytes(CSV_FILES["kraken"][1](trades(40)))
    result = imported(path, tmp_path / "out")
    assert result.products[0].missing is None
    result.tape.unlink()
    imported(path, tmp_path / "out")
    contents = read_ledger(tmp_path / "out")
    assert contents.gaps == []
    assert [(span.start, span.end, span.products) for span in contents.unverifiable] == [
        (trade(0).time, trade(39).time, ("kraken:BTC-USDT",))
    ]
    assert len((tmp_path / "out" / "gaps.ndjson").read_bytes().splitlines()) == 1


def test_rejected_rows_are_kept_next_to_the_file(tmp_path: Path) -> None:
    """A damaged row is written with its number and reason to the file of rejected rows."""
    rows = AGG(trades(10)).splitlines(keepends=True)
    (tmp_path / AGG_NAME).write_bytes(b"".join([*rows[:4], b"1004,oops\n", *rows[4:]]))
    result = imported(tmp_path / AGG_NAME, tmp_path / "out")
    assert result.rejected_file == tmp_path / "BTCUSDT-aggTrades-2025-10-04.rejected.ndjson"
    record = json.loads(result.rejected_file.read_text())
    assert (record["line"], record["text"]) == (5, "1004,oops")
    assert record["reason"] == "expected 8 columns, got 2"


def test_a_truncated_archive_keeps_what_can_be_read(tmp_path: Path) -> None:
    """The end of a cut-off file is reported as missing, and its last line is not half read."""
    packed = gzip.compress(AGG(trades(3000)))
    (tmp_path / f"{AGG_NAME}.gz").write_bytes(packed[: len(packed) // 2])
    result = imported(tmp_path / f"{AGG_NAME}.gz", tmp_path / "out")
    assert result.report is not None
    assert "cut off" in str(result.report.fault)
    found = ticks_of(result.tape)
    assert 0 < len(found) < 3000
    assert same(found[:-1], trades(3000)[: len(found) - 1])


def test_local_times_need_their_zone(tmp_path: Path) -> None:
    """Times without a zone are UTC with a note; with --timezone they are local."""
    path = tmp_path / "binance_BTC-USDT.csv"
    path.write_text("time,price,size\n2025-10-04 02:00:00.5,100,1\n2025-10-04 02:00:01,100,1\n")
    result = imported(path, tmp_path / "utc")
    assert result.report is not None
    assert [note for note in result.report.notes if "--timezone" in note]
    local = imported(path, tmp_path / "local", timezone="Europe/Berlin")
    assert ticks_of(local.tape)[0].time == START + SECOND_NS // 2
    assert ticks_of(result.tape)[0].time == START + 2 * 3600 * SECOND_NS + SECOND_NS // 2


def test_ticks_per_second_are_reported(tmp_path: Path) -> None:
    """Median and share refer to every second of the span."""
    places = [0, 1, 2, 3, 8, 9, 10, 40]
    (tmp_path / AGG_NAME).write_bytes(AGG([trade(place) for place in places]))
    [product] = imported(tmp_path / AGG_NAME, tmp_path / "out").products
    assert (product.median_per_second, product.active_share) == (0.0, 3 / 11)
    (tmp_path / AGG_NAME).write_bytes(AGG(trades(40)))
    [product] = imported(tmp_path / AGG_NAME, tmp_path / "out").products
    assert (product.median_per_second, product.active_share) == (4.0, 1.0)


def test_errors_are_those_of_volspike(tmp_path: Path) -> None:
    """A file that does not exist is no traceback."""
    with pytest.raises(VolspikeError, match="cannot be opened"):
        imported(tmp_path / "missing.csv", tmp_path / "out")


@pytest.mark.shared_data
def test_a_day_of_binance_reads_as_recorded(tmp_path: Path, shared_data: Path) -> None:
    """A real day, written in the layout of Binance's archive, is the recording again, without a missing id."""
    day = pq.read_table(shared_data / "sets" / "binance_btcusdc" / "BTC-USDC_20251004.parquet")
    times = day.column("time").cast(pa.int64()).to_pylist()
    columns = [day.column(name).to_pylist() for name in ("id", "price", "size", "side")]
    rows = zip(times, *columns, strict=True)
    lines = [
        f"{id_},{price:.8f},{size:.8f},1,2,{at // 1000},{side == 'SELL'},True" for at, id_, price, size, side in rows
    ]
    path = tmp_path / "BTCUSDC-aggTrades-2025-10-04.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDC-aggTrades-2025-10-04.csv", "\n".join(lines) + "\n")
    result = imported(path, tmp_path / "out")
    assert [(product.product_id, product.missing) for product in result.products] == [("binance:BTC-USDC", 0)]
    found = pq.read_table(result.tape)
    assert found.column("time").cast(pa.int64()).to_pylist() == times
    for name, original in (("trade_id", "id"), ("price", "price"), ("last_size", "size")):
        assert found.column(name).to_pylist() == day.column(original).to_pylist()
    assert [side.upper() for side in found.column("side").to_pylist()] == columns[3]
