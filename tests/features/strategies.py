"""Hypothesis strategies for ticks: silences, bursts, repeats, late events, missing quotes, trades and ids."""

from __future__ import annotations

from math import nan

from hypothesis import strategies as st

from volspike.market import Kind, Side, Tick

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND + 250_000_000

STEPS = st.one_of(
    st.integers(0, 2 * SECOND),
    st.sampled_from([0, 1, SECOND, 10 * SECOND, 10 * SECOND + 1, 45 * SECOND, 300 * SECOND, 300 * SECOND + 1]),
    st.integers(-3 * SECOND, 0),
)
WARMING = st.one_of(
    st.integers(0, 2 * SECOND),
    st.integers(0, 30 * SECOND),
    st.sampled_from([0, 1, SECOND, 10 * SECOND + 1, 45 * SECOND, 90 * SECOND, 300 * SECOND, 300 * SECOND + 1]),
    st.integers(-3 * SECOND, 0),
)
"""Steps in time that soon add up to more than a minute."""

PRICES = st.integers(9_900_00, 10_100_00).map(lambda cents: cents / 100)
SIZES = st.one_of(st.just(nan), st.just(0.0), st.floats(1e-8, 1e6, allow_subnormal=False))


@st.composite
def tick_lists(
    draw: st.DrawFn,
    products: tuple[str, ...] = ("BTC-USD",),
    min_size: int = 1,
    max_size: int = 60,
    steps: st.SearchStrategy[int] = STEPS,
) -> list[Tick]:
    """Events of some products in the order in which they are received."""
    time = dict.fromkeys(products, START)
    ids = dict.fromkeys(products, 100)
    events: list[Tick] = []
    for _ in range(draw(st.integers(min_size, max_size))):
        product = draw(st.sampled_from(products))
        time[product] += draw(steps)
        if events and draw(st.integers(0, 9)) == 0:
            events.append(draw(st.sampled_from(events)))  # a repeat
            continue
        trade_id = -1
        if draw(st.booleans()):
            ids[product] += draw(st.sampled_from([1, 1, 1, 2, -1]))
            trade_id = ids[product]
        quoted = draw(st.integers(0, 4)) > 0
        price = draw(PRICES)
        events.append(
            Tick(
                time=time[product],
                received=time[product],
                kind=draw(st.sampled_from([Kind.TICKER, Kind.TICKER, Kind.TRADE])),
                product_id=product,
                price=price,
                best_bid=price - 0.01 if quoted else nan,
                best_ask=price + draw(st.sampled_from([0.01, 0.5])) if quoted else nan,
                bid_size=draw(SIZES) if quoted else nan,
                ask_size=draw(SIZES) if quoted else nan,
                last_size=draw(SIZES),
                side=draw(st.sampled_from(Side)),
                trade_id=trade_id,
                sequence=-1,
            )
        )
    return events
