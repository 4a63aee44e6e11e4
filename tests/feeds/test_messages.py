"""The raw object of a tape line, of both protocols."""

from __future__ import annotations

from math import isnan, nan
from typing import Any

import msgspec
import pytest

from tests.feeds.coinbase_messages import MATCH, TICKER, TRADE
from volspike.errors import MalformedTick
from volspike.feeds.messages import RawMessage, drop_empty_fields, tick_from_raw
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import Kind, Side, Tick, parse_time

RECEIVED = parse_time("2025-12-06T05:45:36.037320")

ADVANCED_TRADE: dict[str, Any] = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "89565",
    "volume_24_h": "8103.26846767",
    "best_bid": "89574.23",
    "best_ask": "89574.24",
    "best_bid_quantity": "0.05342067",
    "best_ask_quantity": "0.24894374",
}


def tick_of(raw: dict[str, Any], **line: Any) -> Tick | None:
    """The tick of a line that equals its raw object except for ``line``."""
    told = msgspec.convert(drop_empty_fields(raw), RawMessage, strict=False)
    fields: dict[str, Any] = {
        "product_id": told.product_id,
        "price": told.price,
        "best_bid": told.best_bid,
        "best_ask": told.best_ask,
    }
    return tick_from_raw(told, received=RECEIVED, **(fields | line))


def same(one: object, other: object) -> bool:
    """Equal, with NaN equal to NaN."""
    return repr(one) == repr(other)


def test_an_advanced_trade_line() -> None:
    """The documented line: quotes from the line, sizes from its raw object, and our time because there is no other."""
    expected = Tick(
        time=RECEIVED,
        received=RECEIVED,
        kind=Kind.TICKER,
        product_id="BTC-USD",
        price=89565.0,
        best_bid=89574.23,
        best_ask=89574.24,
        bid_size=0.05342067,
        ask_size=0.24894374,
    )
    assert same(tick_of(ADVANCED_TRADE), expected)


@pytest.mark.parametrize("raw", [TICKER, MATCH])
def test_an_exchange_line_is_the_frame(raw: dict[str, Any]) -> None:
    """A line of an Exchange message gives the tick that the message gave live."""
    (live,) = decode_exchange(msgspec.json.encode(raw), RECEIVED).ticks
    assert same(tick_of(raw), live)


def test_an_advanced_trade_trade_is_the_frame() -> None:
    """A line of an Advanced Trade trade gives the tick that the frame gave live, with the taker's side."""
    frame = {"channel": "market_trades", "events": [{"type": "update", "trades": [TRADE]}]}
    (live,) = decode_advanced_trade(msgspec.json.encode(frame), RECEIVED).ticks
    assert same(tick_of(TRADE), live)
    assert (live.kind, live.side) == (Kind.TRADE, Side.BUY)


def test_last_match_gives_no_tick() -> None:
    """A line of a past trade gives no tick."""
    assert tick_of(MATCH | {"type": "last_match"}) is None


def test_the_line_comes_before_the_raw_object() -> None:
    """Where line and raw object differ, the line counts; what it lacks is taken from the raw object."""
    tick = tick_of(ADVANCED_TRADE, price=1.5, best_bid=nan, product_id="")
    assert tick is not None
    assert (tick.price, tick.best_bid, tick.product_id) == (1.5, 89574.23, "BTC-USD")


def test_a_line_without_raw() -> None:
    """With an empty raw object, the tick has only the fields of the line."""
    tick = tick_of({}, product_id="BTC-USD", price=10.0, best_bid=9.0, best_ask=11.0)
    assert tick is not None
    assert (tick.best_bid, tick.best_ask) == (9.0, 11.0)
    assert isnan(tick.bid_size)
    assert isnan(tick.ask_size)


@pytest.mark.parametrize("empty", ["", None, "0"])
def test_an_empty_book_side_is_nan(empty: str | None) -> None:
    """An empty bid has neither price nor size."""
    tick = tick_of(ADVANCED_TRADE | {"best_bid": empty})
    assert tick is not None
    assert isnan(tick.best_bid)
    assert isnan(tick.bid_size)
    assert tick.ask_size == 0.24894374


@pytest.mark.parametrize(
    ("raw", "line", "path"),
    [
        (ADVANCED_TRADE, {"price": 0.0}, "$.price"),
        (ADVANCED_TRADE | {"price": "nan"}, {}, "$.price"),
        (ADVANCED_TRADE, {"best_ask": -1.0}, "$.best_ask"),
        (ADVANCED_TRADE | {"best_bid_quantity": "inf"}, {}, "$.raw.best_bid_quantity"),
        (TICKER | {"best_ask_size": "-1"}, {}, "$.raw.best_ask_size"),
        (TICKER | {"last_size": "-1"}, {}, "$.raw.last_size"),
        (TICKER | {"time": "noon"}, {}, "$.raw.time"),
        (TICKER | {"side": "short"}, {}, "$.raw.side"),
        (ADVANCED_TRADE | {"product_id": ""}, {}, "$.product_id"),
    ],
)
def test_a_fault_is_located_in_the_line(raw: dict[str, Any], line: dict[str, Any], path: str) -> None:
    """An invalid value is refused with its path from the root of the line."""
    with pytest.raises(MalformedTick) as caught:
        tick_of(raw, **line)
    assert caught.value.path == path


def test_only_fields_that_may_be_empty_are_dropped() -> None:
    """An empty price is kept, to be refused; an empty bid is removed at any depth."""
    message = {"price": "", "events": [{"tickers": [{"best_bid": "", "best_ask": "0", "side": None}]}]}
    assert drop_empty_fields(message) == {"price": "", "events": [{"tickers": [{"best_ask": "0"}]}]}
