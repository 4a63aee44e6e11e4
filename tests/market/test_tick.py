"""Ticks as rows and as columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volspike.market import Kind, Side, Tick, Ticks

NUMBERS = st.floats(min_value=0, allow_infinity=False) | st.just(float("nan"))
INT64 = st.integers(-(2**63), 2**63 - 1)

TICKS = st.lists(
    st.builds(
        Tick,
        time=INT64,
        received=INT64,
        kind=st.sampled_from(Kind),
        product_id=st.sampled_from(["BTC-USD", "ETH-USD", "SOL-USD"]),
        price=NUMBERS,
        best_bid=NUMBERS,
        best_ask=NUMBERS,
        bid_size=NUMBERS,
        ask_size=NUMBERS,
        last_size=NUMBERS,
        side=st.sampled_from(Side),
        trade_id=INT64,
        sequence=INT64,
    ),
    max_size=20,
)


def rows(ticks: Ticks | list[Tick]) -> list[str]:
    """The ticks as text, in which NaN equals NaN."""
    return [repr(tick) for tick in ticks]


@given(TICKS)
def test_columns_iterate_as_the_same_ticks(rows_in: list[Tick]) -> None:
    """Columns made of ticks iterate as the same ticks."""
    ticks = Ticks.of(rows_in)
    assert len(ticks) == len(rows_in)
    assert rows(ticks) == rows(rows_in)


@given(TICKS, st.integers(-25, 25), st.integers(-25, 25))
def test_a_slice_is_the_slice_of_the_rows(rows_in: list[Tick], start: int, stop: int) -> None:
    """Slicing the columns slices the rows; the list of products is unchanged."""
    ticks = Ticks.of(rows_in)
    part = ticks[start:stop]
    assert rows(part) == rows(rows_in[start:stop])
    assert part.products == ticks.products


@given(TICKS, st.data())
def test_a_mask_keeps_its_rows(rows_in: list[Tick], data: st.DataObject) -> None:
    """A boolean mask keeps the rows where it is true."""
    mask = data.draw(st.lists(st.booleans(), min_size=len(rows_in), max_size=len(rows_in)))
    kept = [tick for tick, keep in zip(rows_in, mask, strict=True) if keep]
    assert rows(Ticks.of(rows_in)[np.array(mask, bool)]) == rows(kept)


@given(st.lists(TICKS, max_size=4))
def test_join_is_concatenation(parts: list[list[Tick]]) -> None:
    """Joined parts are their rows one after another, although each part numbers its products differently."""
    joined = Ticks.join([Ticks.of(part) for part in parts])
    assert rows(joined) == rows([tick for part in parts for tick in part])


def test_products_are_numbered_by_first_appearance() -> None:
    """Product codes index the list of products in the order of first appearance."""
    rows_in = [
        Tick(time=0, received=0, kind=Kind.TICKER, product_id=product, price=1.0)
        for product in ("ETH-USD", "BTC-USD", "ETH-USD")
    ]
    ticks = Ticks.of(rows_in)
    assert ticks.products == ("ETH-USD", "BTC-USD")
    assert ticks.product.tolist() == [0, 1, 0]


def test_no_ticks() -> None:
    """No ticks are columns of length 0 with the right types."""
    for ticks in (Ticks.of([]), Ticks.join([])):
        assert len(ticks) == 0
        assert rows(ticks) == []
        assert ticks.time.dtype == np.int64
        assert ticks.product.dtype == np.int32
