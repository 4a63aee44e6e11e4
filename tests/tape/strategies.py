"""Hypothesis strategies for ticks of a feed, and shared helpers of the tape tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from volspike.market import MISSING_ID, Kind, Side, Tick, Ticks
from volspike.tape import TapeReport, read_ticks

START = 1_700_000_000 * 1_000_000_000

INSTANTS = st.one_of(st.integers(0, 2**62), st.integers(START, START + 10**10))
PRICES = st.one_of(
    st.integers(1, 10**8).map(lambda cents: cents / 100),
    st.floats(0.0, exclude_min=True, allow_infinity=False, allow_subnormal=False),
)
SIZES = st.one_of(st.just(nan), st.just(0.0), st.floats(0.0, 1e12, allow_subnormal=False))
IDS = st.one_of(st.just(MISSING_ID), st.integers(0, 2**63 - 1))
PRODUCTS = st.one_of(
    st.sampled_from(["BTC-USD", "ETH-USD", "BTC-JPY"]), st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
)
NO_QUOTE = (nan, nan)


@st.composite
def ticks(draw: st.DrawFn) -> Tick:
    """A tick of either kind; a trade has no quotes, and an empty side of the book has no size."""
    kind = draw(st.sampled_from(Kind))
    quotes = st.one_of(st.just(NO_QUOTE), st.tuples(PRICES, SIZES)) if kind == Kind.TICKER else st.just(NO_QUOTE)
    best_bid, bid_size = draw(quotes)
    best_ask, ask_size = draw(quotes)
    received = draw(INSTANTS)
    return Tick(
        time=draw(st.one_of(st.just(received), INSTANTS)),
        received=received,
        kind=kind,
        product_id=draw(PRODUCTS),
        price=draw(PRICES),
        best_bid=best_bid,
        best_ask=best_ask,
        bid_size=bid_size,
        ask_size=ask_size,
        last_size=draw(SIZES),
        side=draw(st.sampled_from(Side)),
        trade_id=draw(IDS),
        sequence=draw(IDS),
    )


def tick_at(received: int, price: float = 100.0, product_id: str = "BTC-USD") -> Tick:
    """A plain ticker message of ``received`` nanoseconds after ``START``."""
    return Tick(
        time=START + received,
        received=START + received,
        kind=Kind.TICKER,
        product_id=product_id,
        price=price,
        best_bid=price - 0.01,
        best_ask=price + 0.01,
        bid_size=1.5,
        ask_size=0.25,
    )


def read_all(source: object, **options: object) -> Ticks:
    """Everything that a tape, or several, hold."""
    return Ticks.join(list(read_ticks(source, **options)))  # type: ignore[arg-type]


def read_with_report(source: Path | Sequence[Path], *, block_bytes: int = 1 << 20) -> tuple[Ticks, TapeReport]:
    """Everything that tapes contain, and the outcome of reading it."""
    report = TapeReport()
    return Ticks.join(list(read_ticks(source, report=report, block_bytes=block_bytes))), report


def assert_same(left: Ticks, right: Ticks | Iterable[Tick]) -> None:
    """Every column the same, bit for bit, NaN where NaN is; products by their names."""
    other = right if isinstance(right, Ticks) else Ticks.of(right)
    assert len(left) == len(other)
    for name, column in left.columns():
        if name != "product":
            np.testing.assert_array_equal(column, getattr(other, name), err_msg=name)
    assert [left.products[code] for code in left.product] == [other.products[code] for code in other.product]
