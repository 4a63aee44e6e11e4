"""File names of tapes."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.market import SECOND_NS
from volspike.tape import TapeName, product_of, read_tape_name, tape_name


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
    ],
)
def test_a_product_is_found_in_a_name(name: str, product: str | None) -> None:
    """The product follows ``ticks_`` or precedes ``_trades``."""
    assert product_of(PurePath(name)) == product
