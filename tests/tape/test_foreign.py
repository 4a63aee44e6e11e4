"""Ticks recorded by other programs: field names, envelopes, compression and values that volspike does not write."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tape.strategies import START, assert_same, read_all, read_with_report, tick_at
from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS, Kind, Side, Ticks, format_time
from volspike.tape import write_ndjson, write_parquet
from volspike.tape.fields import NAMES

FLAT = {"product_id": "BTC-USD", "price": "100.5", "best_bid": "100", "best_ask": "101"}
SIZE_NAMES = list(zip(NAMES["bid_size"], NAMES["ask_size"], strict=False))
TICKER = {"type": "ticker", **FLAT, "best_bid_size": "0.5", "best_ask_size": "1.5", "time": format_time(START)}
FRAME = {
    "channel": "ticker",
    "timestamp": format_time(START),
    "sequence_num": 3,
    "events": [{"type": "update", "tickers": [{**FLAT, "best_bid_quantity": "0.5", "best_ask_quantity": "1.5"}]}],
}
LATER = format_time(START + SECOND_NS)


def tape_of(path: Path, *lines: Any) -> Path:
    """A tape of the lines; objects become JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


@pytest.mark.parametrize(("bid", "ask"), [*SIZE_NAMES, ("bestBidSize", "bestAskSize"), ("Bid Size", "Ask-Size")])
@pytest.mark.parametrize("form", ["flat", "frame", "channel", "raw", "beside raw", "parquet"])
def test_best_sizes_read_under_every_name(tmp_path: Path, bid: str, ask: str, form: str) -> None:
    """The sizes of the book are read under all names of the table, in a line, a frame, ``raw`` and Parquet."""
    sizes = {bid: "0.5", ask: "1.5"}
    event = FRAME | {"events": [{"type": "update", "tickers": [FLAT | sizes]}]}
    lines: dict[str, Any] = {
        "flat": {"timestamp": format_time(START), **FLAT, **sizes},
        "frame": {"type": "ticker", **FLAT, **sizes, "time": format_time(START)},
        "channel": event,
        "raw": {"timestamp": format_time(START), **FLAT, "raw": {"type": "ticker", **sizes}},
        "beside raw": {"timestamp": format_time(START), **FLAT, **sizes, "raw": {"type": "ticker"}},
    }
    if form == "parquet":
        numbers = {name: [float(value)] for name, value in ({**FLAT, **sizes}).items() if name != "product_id"}
        path = tmp_path / "a.parquet"
        times = pa.array([START], pa.timestamp("ns", "UTC"))
        pq.write_table(pa.table({"time": times, "product_id": ["BTC-USD"], **numbers}), path)
    else:
        path = tape_of(tmp_path / "a.ndjson", *[lines[form]] * 3)
    ticks, report = read_with_report(path)
    assert set(ticks.bid_size) == {0.5}
    assert set(ticks.ask_size) == {1.5}
    assert set(ticks.kind) == {Kind.TICKER}
    assert (report.rejected, report.notes) == (0, [])


def test_names_that_are_not_read_are_noted_once_per_file(tmp_path: Path) -> None:
    """A second name of a field, and a name that resembles a field, are noted; figures of the day are not."""
    flat = {
        "timestamp": LATER,
        **FLAT,
        "bid_size": 1,
        "best_bid_qty": 2,
        "topAskVol": 3,
        "volume_24_h": 9,
        "low_52_w": 1,
    }
    raw = {"timestamp": LATER, **FLAT, "raw": {"type": "ticker", "best_bid_quantity": 1, "bid_depth": 2}}
    for lines in ([flat] * 3, [raw] * 3):
        report = read_with_report(tape_of(tmp_path / "a.ndjson", *lines))[1]
        expected = (
            [
                "best_bid_qty is not used, because bid_size is read from bid_size",
                "topAskVol is not read; if it is ask_size",
            ]
            if lines[0] is flat
            else ["bid_depth is not read; if it is bid_size"]
        )
        assert len(report.notes) == len(expected)
        assert all(note.text.startswith(text) for note, text in zip(report.notes, expected, strict=True))
    columns = {
        "time": pa.array([START], pa.timestamp("ns")),
        "price": [1.0],
        "size": [1.0],
        "qty": [1.0],
        "bidvol": [2.0],
    }
    pq.write_table(pa.table(columns), tmp_path / "ticks_BTCUSD.parquet")
    notes = [note.text for note in read_with_report(tmp_path / "ticks_BTCUSD.parquet")[1].notes]
    assert [note.split()[0] for note in notes] == ["qty", "bidvol"]


def test_a_separate_receive_time_makes_the_timestamp_the_exchanges(tmp_path: Path) -> None:
    """``timestamp`` is the time of receipt of a tape line, and the exchange's where another field is the receipt's."""
    (tick,) = read_all(tape_of(tmp_path / "a.ndjson", {"timestamp": format_time(START), **FLAT, "ingest_ts": LATER}))
    assert (tick.time, tick.received) == (START, START + SECOND_NS)
    (tick,) = read_all(tape_of(tmp_path / "a.ndjson", {"timestamp": LATER, **FLAT, "time": format_time(START)}))
    assert (tick.time, tick.received) == (START, START + SECOND_NS)


ENVELOPES: list[Callable[[Any], Any]] = [
    lambda frame: {"received_at": LATER, "message": frame},
    lambda frame: {"ts": (START + SECOND_NS) / 1e9, "data": frame},
    lambda frame: {"ts": (START + SECOND_NS) // 10**6, "data": json.dumps(frame)},
    lambda frame: {"ingest_time": LATER, "product_id": "BTC-USD", "payload": frame},
    lambda frame: {"host": {"name": "a"}, "localTimestamp": LATER, "anything": json.dumps(json.dumps(frame))},
    lambda frame: {"recv_ts_ns": START + SECOND_NS, "messages": [frame]},
    lambda frame: f"{LATER} {json.dumps(frame)}",
    lambda frame: f"{START + SECOND_NS}\t{json.dumps(frame)}",
    lambda frame: f"{(START + SECOND_NS) / 1e9:.6f}: {json.dumps(frame)}",
    lambda frame: {"t": "recv", "ts": (START + SECOND_NS) // 10**9, "raw": json.dumps(frame)},
]


@pytest.mark.parametrize("frame", [TICKER, FRAME, {**FLAT, "bid_qty": 0.5, "ask_qty": 1.5, "time": format_time(START)}])
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_envelope_is_unwrapped(tmp_path: Path, envelope: Callable[[Any], Any], frame: dict[str, Any]) -> None:
    """Whatever its names, the only frame in a line is read, and the known time next to it is the time of receipt."""
    ticks, report = read_with_report(tape_of(tmp_path / "a.ndjson", envelope(frame), envelope(frame)))
    assert [(tick.time, tick.received, tick.bid_size, tick.ask_size) for tick in ticks] == [
        (START, START + SECOND_NS, 0.5, 1.5)
    ] * 2
    assert (report.rejected, report.notes) == (0, [])


def test_messages_without_ticks_in_an_envelope_are_counted(tmp_path: Path) -> None:
    """A heartbeat, an order book and an acknowledgement in envelopes are no damage."""
    others = [
        {"type": "heartbeat", "product_id": "BTC-USD", "time": LATER, "last_trade_id": 3},
        {"type": "l2update", "product_id": "BTC-USD", "changes": []},
        {"channel": "subscriptions", "timestamp": LATER, "events": [{"subscriptions": {"ticker": ["BTC-USD"]}}]},
    ]
    lines = [{"received_at": LATER, "message": frame} for frame in [TICKER, *others]]
    ticks, report = read_with_report(tape_of(tmp_path / "a.ndjson", *lines))
    assert (len(ticks), report.rejected) == (1, 0)
    assert dict(report.ignored) == {"heartbeat": 1, "l2update": 1, "subscriptions": 1}


def test_the_valid_part_of_a_damaged_frame_is_read(tmp_path: Path) -> None:
    """A frame with one damaged ticker gives the others, and a rejection that locates the fault."""
    tickers = [FLAT, FLAT | {"price": "-1"}, FLAT]
    frame = FRAME | {"events": [{"type": "update", "tickers": tickers}]}
    ticks, report = read_with_report(tape_of(tmp_path / "a.ndjson", {"received_at": LATER, "message": frame}))
    assert len(ticks) == 2
    assert [(rejected.line, "$.events[0].tickers[1]" in rejected.reason) for rejected in report.rejections] == [
        (1, True)
    ]


def test_two_different_frames_in_one_line_are_refused(tmp_path: Path) -> None:
    """A line in which two values hold different ticks is ambiguous; the same ticks twice are read once."""
    other = TICKER | {"price": "7"}
    path = tape_of(tmp_path / "a.ndjson", {"ts": 1, "a": TICKER, "b": TICKER}, {"ts": 2, "a": TICKER, "b": other})
    ticks, report = read_with_report(path)
    assert len(ticks) == 1
    assert "several values hold different ticks: a, b" in report.rejections[0].reason


def test_a_refusal_lists_the_names_that_were_looked_for(tmp_path: Path) -> None:
    """A line of an unknown form is refused with its fields and the fields that would be read."""
    with pytest.raises(UnreadableFile, match="fields when, what; looked for price with timestamp") as caught:
        read_all(tape_of(tmp_path / "a.ndjson", {"when": 1, "what": 2}))
    assert "one object or text that holds these" in str(caught.value)


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst", "a.jsonl.xz", "a.json.bz2", "a.parquet"])
@pytest.mark.parametrize("form", ["plain", "gzip", "zstd", "bzip2", "xz", "parquet"])
def test_the_first_bytes_decide_how_a_tape_is_read(tmp_path: Path, name: str, form: str) -> None:
    """A compressed, plain or Parquet tape reads the same under the name of any other form."""
    told = [tick_at(number) for number in range(300)]
    write_ndjson([Ticks.of(told)], tmp_path / "plain.ndjson")
    write_ndjson([Ticks.of(told)], tmp_path / "packed.ndjson.zst")
    write_parquet([Ticks.of(told)], tmp_path / "columns.parquet")
    text = (tmp_path / "plain.ndjson").read_bytes()
    content = {
        "plain": text,
        "gzip": gzip.compress(text),
        "zstd": (tmp_path / "packed.ndjson.zst").read_bytes(),
        "bzip2": bz2.compress(text[:9000]) + bz2.compress(text[9000:]),
        "xz": lzma.compress(text),
        "parquet": (tmp_path / "columns.parquet").read_bytes(),
    }[form]
    (tmp_path / name).write_bytes(content)
    ticks, report = read_with_report(tmp_path / name)
    assert_same(ticks, told)
    assert report.bytes_read == len(content)


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_truncated_archive_of_the_standard_library_is_noted(
    tmp_path: Path, pack: Callable[[bytes], bytes], name: str
) -> None:
    """Of a bzip2 or xz tape that was cut off, what can be decompressed is read, and the cut is noted."""
    told = [tick_at(number, 100.0 + number % 977 / 7) for number in range(20_000)]
    write_ndjson([Ticks.of(told)], tmp_path / "plain.ndjson")
    packed = pack((tmp_path / "plain.ndjson").read_bytes())
    (tmp_path / "a.ndjson").write_bytes(packed[: len(packed) * 9 // 10])
    ticks, report = read_with_report(tmp_path / "a.ndjson")
    assert 0 < len(ticks) < len(told)
    assert f"the {name} stream is cut off" in report.notes[0].text


@pytest.mark.parametrize("content", [b"PK\x03\x04 and more", b"\x04\x22\x4d\x18 and more"])
def test_an_unsupported_archive_is_named(tmp_path: Path, content: bytes) -> None:
    """A zip archive or lz4 file is refused with its kind and the formats that are read."""
    (tmp_path / "a.ndjson").write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"a zip archive|lz4 data.*gzip, zstd, bzip2 or xz"):
        read_all(tmp_path / "a.ndjson")


def table_at(path: Path, **columns: Any) -> Path:
    """A Parquet file with one row per second from ``START``."""
    length = len(next(iter(columns.values())))
    times = pa.array([START + row * SECOND_NS for row in range(length)], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"time": times, "product_id": ["BTC-USD"] * length, **columns}), path)
    return path


def test_quotes_without_sizes_read_from_parquet_as_from_json(tmp_path: Path) -> None:
    """A table of quotes, and one of prices only, are ticker messages in both forms."""
    quotes = {"price": [100.5, 101.0], "best_bid": [100.0, 100.5], "best_ask": [101.0, 101.5]}
    for columns in (quotes, {"price": quotes["price"]}):
        rows = [
            {"timestamp": format_time(START + row * SECOND_NS), "product_id": "BTC-USD"}
            | {name: values[row] for name, values in columns.items()}
            for row in range(2)
        ]
        ticks = read_all(table_at(tmp_path / "a.parquet", **columns))
        assert set(ticks.kind) == {Kind.TICKER}
        assert_same(ticks, read_all(tape_of(tmp_path / "a.ndjson", *rows)))


def test_duplicate_columns_are_refused_by_name(tmp_path: Path) -> None:
    """A Parquet file with two columns of one name is refused with that name; an unused duplicate does not matter."""
    times = pa.array([START], pa.timestamp("ns", "UTC"))
    columns = [("time", times), ("price", [1.0]), ("size", [1.0]), ("product_id", ["A-B"]), ("x", [1]), ("x", [2])]
    for extra in ([], [("time", times)]):
        names, arrays = zip(*columns, *extra, strict=True)
        pq.write_table(pa.Table.from_arrays([pa.array(array) for array in arrays], names), tmp_path / "a.parquet")
        if extra:
            with pytest.raises(UnreadableFile, match="2 columns are named time"):
                read_all(tmp_path / "a.parquet")
        else:
            assert len(read_all(tmp_path / "a.parquet")) == 1


SIDES = {"Buy": Side.BUY, "b": Side.BUY, "BID": Side.BUY, "S": Side.SELL, "Sell": Side.SELL, "ask": Side.SELL, "": 0}
IDS = {"17": 17, "17.0": 17, "8f14e45f-ceea-467f-9575-6b3c25e1f5cf": -1, "": -1}


@pytest.mark.parametrize(("word", "side"), SIDES.items())
def test_a_side_is_read_in_any_spelling(tmp_path: Path, word: str, side: int) -> None:
    """Every usual word for a side is read, in a line, in ``raw`` and in Parquet."""
    flat = {"timestamp": LATER, **FLAT, "side": word}
    raw = {"timestamp": LATER, **FLAT, "raw": {"type": "ticker", "side": word}}
    ticks, report = read_with_report(tape_of(tmp_path / "a.ndjson", flat, raw))
    assert ([*ticks.side], report.rejected) == ([side, side], 0)
    assert [*read_all(table_at(tmp_path / "a.parquet", price=[1.0], size=[1.0], side=[word])).side] == [side]


@pytest.mark.parametrize(("text", "number"), IDS.items())
def test_an_id_that_is_no_integer_costs_no_line(tmp_path: Path, text: str, number: int) -> None:
    """A float, text or UUID as trade id does not cost the line; an id that is no number is missing, and noted."""
    flat = {"timestamp": LATER, **FLAT, "trade_id": text}
    raw = {"timestamp": LATER, **FLAT, "raw": {"type": "ticker", "trade_id": text}}
    ticks, report = read_with_report(tape_of(tmp_path / "a.ndjson", flat, raw))
    assert ([*ticks.trade_id], report.rejected) == ([number, number], 0)
    notes = [note.text for note in report.notes]
    ticks, report = read_with_report(table_at(tmp_path / "a.parquet", price=[1.0], size=[1.0], trade_id=[text or None]))
    assert [*ticks.trade_id] == [number]
    assert notes == [note.text for note in report.notes]
    assert bool(notes) == (text.startswith("8f"))


def test_float_ids_with_missing_values_read(tmp_path: Path) -> None:
    """A column of ids that pandas turned into floats, NaN where missing, is read."""
    path = table_at(tmp_path / "a.parquet", price=[1.0, 2.0], size=[1.0, 1.0], trade_id=[900000000.0, float("nan")])
    assert [*read_all(path).trade_id] == [900000000, -1]


def test_json_numbers_that_are_none_cost_no_line(tmp_path: Path) -> None:
    """NaN and Infinity, which other programs write into JSON, are missing values."""
    flat = '{"timestamp":"%s","product_id":"BTC-USD","price":1.5,"best_bid":NaN,"volume":Infinity,"size":-Infinity}'
    ticks, report = read_with_report(
        tape_of(tmp_path / "a.ndjson", flat % LATER, json.dumps({"ts": LATER, "m": TICKER}))
    )
    assert (len(ticks), report.rejected) == (2, 0)
    assert ticks.price[0] == 1.5
    assert isnan(ticks.best_bid[0])


def test_the_taker_of_a_trade_depends_on_who_states_the_side(tmp_path: Path) -> None:
    """Coinbase's matches state the maker's side, as does a field of that name; any other side is the taker's."""
    trade = {"timestamp": LATER, "product_id": "BTC-USD", "price": 1, "size": 2, "trade_id": 3}
    lines = [trade | {"side": "buy"}, trade | {"maker_side": "buy"}, trade | {"side": "buy", "type": "match"}]
    ticks = read_all(tape_of(tmp_path / "a.ndjson", *lines))
    assert set(ticks.kind) == {Kind.TRADE}
    assert [*ticks.side] == [Side.BUY, Side.SELL, Side.SELL]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "ticks", "has_sizes"),
    [
        ("01_flat_advanced_trade.ndjson", 1000, True),
        ("02_flat_exchange.ndjson", 1000, True),
        ("03_sizes_named_like_coinbase.parquet", 1000, True),
        ("05_quotes_only.parquet", 1000, False),
        ("07_plain_text_named.ndjson.gz", 1000, True),
        ("11_wrapped_payload.ndjson", 300, True),
        ("13_tardis_prefix.ndjson", 300, True),
    ],
)
def test_the_collected_cases_read(shared_data: Path, name: str, ticks: int, has_sizes: bool) -> None:
    """Every tick of the collected cases is read, with the sizes of the book where the file has them."""
    read, report = read_with_report(shared_data / "cases" / name)
    assert (len(read), report.rejected, report.notes) == (ticks, 0, [])
    assert [not isnan(size) for size in read.bid_size] == [has_sizes] * ticks


@pytest.mark.shared_data
def test_the_collected_case_of_duplicate_columns_is_refused(shared_data: Path) -> None:
    """Two columns named time are named in the refusal."""
    with pytest.raises(UnreadableFile, match="2 columns are named time"):
        read_all(shared_data / "cases" / "15_two_columns_named_time.parquet")
