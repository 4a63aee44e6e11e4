"""Products of several venues in one reading."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from volspike.feeds.events import Frame
from volspike.market import SECOND_NS, Cause, Gap, Kind, Tick, Ticks
from volspike.streams.replay import tape_messages
from volspike.tape import (
    Ledger,
    Recorder,
    TapeReport,
    compact,
    ledgers_of,
    read_ticks,
    tapes_of,
    write_ndjson,
    write_parquet,
)

START = 1_765_000_000 * SECOND_NS


def tick(product: str, second: int) -> Tick:
    at = START + second * SECOND_NS
    return Tick(time=at, received=at, kind=Kind.TRADE, product_id=product, price=100.0 + second, last_size=1.0)


def products(*sources: str | Path) -> set[str]:
    return {name for part in read_ticks(list(sources)) for name in part.products}


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
def test_equal_products_of_two_folders_do_not_merge(tmp_path: Path, form: str) -> None:
    """A folder named like a venue is the venue of rows that state none; other folders change nothing."""
    write = write_ndjson if form == "ndjson" else write_parquet
    for number, folder in enumerate(("coinbase", "gemini", "kraken", "mine")):
        (tmp_path / folder).mkdir()
        ticks = [tick("BTC-USD", second) for second in range(number, 20, 4)]
        write([Ticks.of(ticks)], tmp_path / folder / f"BTC-USD_2025.{form}")
    parts = list(read_ticks([tmp_path]))
    joined = Ticks.join(parts)
    names = [joined.products[code] for code in joined.product.tolist()]
    assert [int(time - START) // SECOND_NS for time in joined.time] == list(range(20))
    assert names == ["BTC-USD", "gemini:BTC-USD", "kraken:BTC-USD", "BTC-USD"] * 5
    messages = list(tape_messages([tmp_path], TapeReport()))
    assert [message.key.decode() for message in messages] == names
    assert all(name in message.value.decode() for name, message in zip(names, messages, strict=True))


def test_a_column_states_the_venue(tmp_path: Path) -> None:
    """``venue`` or ``exchange`` comes before the folder; a name that has a venue keeps it."""
    (tmp_path / "gemini").mkdir()
    table = pl.DataFrame(
        {
            "time": pl.Series([START + k * SECOND_NS for k in range(4)]).cast(pl.Datetime("ns", "UTC")),
            "price": [1.0, 2.0, 3.0, 4.0],
            "symbol": ["BTC-USD", "BTC-USD", "okx:BTC-USD", "BTC-USD"],
            "exchange": ["Kraken", "coinbase", "kraken", None],
        }
    ).to_arrow()
    path = tmp_path / "gemini" / "trades.parquet"
    pq.write_table(table, path)
    joined = Ticks.join(list(read_ticks([path])))
    names = [joined.products[code] for code in joined.product.tolist()]
    assert names == ["kraken:BTC-USD", "BTC-USD", "okx:BTC-USD", "gemini:BTC-USD"]


def test_a_recorder_keeps_venues_apart(tmp_path: Path) -> None:
    """Equal symbols of two venues have files of their own, compacted or not, and read back under their names."""
    recorder = Recorder(tmp_path, clock=lambda: START)
    for second in range(3):
        for product in ("BTC-USD", "kraken:BTC-USD", "binance-um:BTC-USD"):
            each = tick(product, second)
            recorder.frame(each.received, Frame(time=each.time, ticks=(each,)))
    recorder.close()
    expected = {"BTC-USD", "kraken:BTC-USD", "binance-um:BTC-USD"}
    assert len(list(tmp_path.glob("ticks_*.ndjson"))) == 3
    assert products(tmp_path) == expected
    compact(tmp_path, clock=lambda: time.time_ns() + 8_000 * SECOND_NS)
    assert sorted(path.name.split("_")[1] for path in tmp_path.glob("*.parquet")) == [
        "BTCUSD",
        "binance-um-BTCUSD",
        "kraken-BTCUSD",
    ]
    assert products(tmp_path) == expected


@pytest.mark.parametrize(
    ("tapes", "stated", "named"),
    [
        (["gemini/BTC-USD_2025.ndjson"], ("BTC-USD",), ("gemini:BTC-USD",)),
        (["mine/ticks_BTCUSD_20251206_054535.ndjson"], ("BTC-USD",), ("BTC-USD",)),
        (
            ["mine/ticks_BTCUSD_20251206_054535.ndjson", "mine/ticks_kraken-BTCUSD_20251206_054535.ndjson"],
            ("BTC-USD", "kraken:BTC-USD"),
            ("BTC-USD", "kraken:BTC-USD"),
        ),
        (["mine/ticks_kraken-BTCUSD_20251206_054535.ndjson"], ("kraken:BTC-USD",), ("kraken:BTC-USD",)),
        (
            ["two/bitflyer_BTC-JPY_2018.ndjson", "two/btcbox_BTC-JPY_2018.ndjson"],
            ("BTC-JPY",),
            ("bitflyer:BTC-JPY", "btcbox:BTC-JPY"),
        ),
    ],
)
def test_gaps_name_products_as_the_ticks_do(
    tmp_path: Path, tapes: list[str], stated: tuple[str, ...], named: tuple[str, ...]
) -> None:
    """A loss in the ledger of unlabelled tapes reaches the rows of their venue, and of no other product."""
    for tape in tapes:
        (tmp_path / tape).parent.mkdir(exist_ok=True)
        write_ndjson([Ticks.of([tick("BTC-USD", 0)])], tmp_path / tape)
    ledger = Ledger((tmp_path / tapes[0]).parent)
    ledger.add(Gap(start=START, end=START + SECOND_NS, products=stated, cause=Cause.RESTART))
    assert ledger.flush()
    assert [gap.products for gap in ledgers_of(tapes_of(tmp_path)).gaps] == [named]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("sets/two_venues_20180812", {"bitflyer:BTC-JPY", "btcbox:BTC-JPY"}),
        ("sets/fx_gold", {"fxcm:EUR-USD", "oanda:EUR-USD", "oanda:XAU-USD"}),
    ],
)
def test_recordings_of_two_venues(shared_data: Path, folder: str, expected: set[str]) -> None:
    """The file names state the venue."""
    assert products(shared_data / folder) == expected


@pytest.mark.shared_data
def test_a_crash_at_three_venues(shared_data: Path) -> None:
    """One reading of three folders: Coinbase's pairs are bare, the others are named."""
    found = products(shared_data / "sets/crash_20251010")
    assert {"gemini:BTC-USD", "gemini:ETH-USD", "binance:POL-USDT", "POL-USD", "LINK-USD"} <= found
