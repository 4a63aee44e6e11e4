"""File names of tapes."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.market import SECOND_NS
from volspike.tape import TapeName, product_of, read_tape_name, tape_name, tapes_of
from volspike.tape.names import read_hour_name, symbol_of, venue_of


@given(
    base=st.sampled_from(["BTC", "ETH", "DOGE"]),
    quote=st.sampled_from(["USD", "EUR", "USDC", "BTC"]),
    second=st.integers(0, 4_000_000_000),
)
def test_a_name_tells_product_and_start(base: str, quote: str, second: int) -> None:
    """The name made of a product and a time reads back as both, to the second."""
    name = tape_name(f"{base}-{quote}", second * SECOND_NS + 5, ".ndjson.zst")
    assert read_tape_name(PurePath("data", name)) == TapeName(f"{base}-{quote}", second * SECOND_NS)


def test_a_recorded_tapes_name_reads() -> None:
    """Names of recorded tapes, with or without more behind the time, are understood."""
    assert tape_name("BTC-USD", 1764999935 * SECOND_NS) == "ticks_BTCUSD_20251206_054535.ndjson"
    told = read_tape_name(PurePath("ticks_BTCUSD_20251201_164446_10min.ndjson"))
    assert told == TapeName("BTC-USD", 1764607486 * SECOND_NS)


@pytest.mark.parametrize("name", ["btc.ndjson", "ticks_BTCUSD_2025.ndjson", "ticks_BTCUSD_20251399_000000.ndjson"])
def test_another_name_tells_nothing(name: str) -> None:
    """A name of another shape, or with a time that never was, is not guessed at."""
    assert read_tape_name(PurePath(name)) is None


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("btcjpy_trades_20180120_25.parquet", "BTC-JPY"),
        ("ticks_ETHBTC.parquet", "ETH-BTC"),
        ("ticks_XYZ_1.parquet", "XYZ"),
        ("features.parquet", None),
        ("ticks_kraken-BTCUSD_20251206_05.parquet", "kraken:BTC-USD"),
        ("trades_binance-um-BTCUSDT_20251206.parquet", "binance-um:BTC-USDT"),
    ],
)
def test_a_product_is_found_in_a_name(name: str, product: str | None) -> None:
    """The product follows ``ticks_`` or precedes ``_trades``."""
    assert product_of(PurePath(name)) == product


def test_an_existing_path_is_no_pattern(tmp_path: Path) -> None:
    """Brackets in the names of folders and files are literal where such a folder or file exists, else a pattern."""
    folder = tmp_path / "data [1]" / "x*"
    folder.mkdir(parents=True)
    for place, name in (
        (folder, "a[2].ndjson"),
        (folder, "b.ndjson"),
        (tmp_path, "c1.ndjson"),
        (tmp_path, "c2.ndjson"),
    ):
        (place / name).touch()

    def named(source: object) -> list[str]:
        return [path.name for path in tapes_of(str(source))]

    assert named(tmp_path / "data [1]" / "x*") == ["a[2].ndjson", "b.ndjson"]
    assert named(folder / "*.ndjson") == ["a[2].ndjson", "b.ndjson"]
    assert named(folder / "a[2].ndjson") == ["a[2].ndjson"]
    assert named(tmp_path / "data [1]" / "**" / "b.ndjson") == ["b.ndjson"]
    assert named(tmp_path / "data ?1]" / "x[*]" / "[b]*") == ["b.ndjson"]
    assert named(tmp_path / "c[12].ndjson") == ["c1.ndjson", "c2.ndjson"]
    with pytest.raises(UsageError, match="no tape matches"):
        tapes_of(str(tmp_path / "data [1]" / "[z]*"))


@given(
    venue=st.sampled_from(["binance", "binance-um", "crypto-com", "okx"]),
    base=st.sampled_from(["BTC", "1INCH"]),
    second=st.integers(0, 4_000_000_000),
)
def test_a_name_states_the_venue(venue: str, base: str, second: int) -> None:
    """A tape of another venue than Coinbase has it in lower case before the symbol, and no colon."""
    name = tape_name(f"{venue}:{base}-USDT", second * SECOND_NS)
    assert ":" not in name
    assert read_tape_name(PurePath(name)) == TapeName(f"{venue}:{base}-USDT", second * SECOND_NS)
    hour = read_hour_name(Path(name))
    assert hour is not None
    assert hour.symbol == symbol_of(f"{venue}:{base}-USDT") == f"{venue}-{base}USDT"
    assert venue_of(PurePath(name)) == venue


@pytest.mark.parametrize(
    ("path", "venue"),
    [
        ("x/bitflyer_BTC-JPY_20180812.parquet", "bitflyer"),
        ("x/oanda_EUR-USD_201405_01_09.parquet", "oanda"),
        ("x/spot_BTC-USDT_2024.parquet", None),
        ("x/coinbase_BTC-USD_2024.parquet", None),
        ("gemini/BTC-USD_20251010.parquet", "gemini"),
        ("Kraken/any.ndjson", "kraken"),
        ("coinbase/BTC-USD.parquet", None),
        ("kraken2/any.ndjson", None),
        ("gemini/ticks_kraken-BTCUSD_20251206_054535.ndjson", "kraken"),
        ("gemini/bitflyer_BTC-JPY_2018.parquet", "bitflyer"),
        ("binance_trades.parquet", None),
    ],
)
def test_the_venue_of_a_file(path: str, venue: str | None) -> None:
    """The file's own name comes before its folder; only known venues are recognised, and Coinbase is none."""
    assert venue_of(PurePath(path)) == venue
