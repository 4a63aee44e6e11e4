"""Coinbase Exchange frames, by the examples of its documentation."""

from __future__ import annotations

from math import isnan
from typing import Any

import msgspec
import pytest

from tests.feeds.coinbase_messages import MATCH, TICKER
from volspike.errors import MalformedTick
from volspike.feeds.events import ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import Kind, Side, Tick, parse_time

RECEIVED = 1_700_000_000_000_000_000

EXAMPLE_TRADE = Tick(
    time=parse_time("2021-04-17T16:43:37.089723Z"),
    received=RECEIVED,
    kind=Kind.TRADE,
    product_id="SKL-BTC",
    price=0.00001305,
    last_size=985.0,
    side=Side.BUY,
    trade_id=280232,
    sequence=177100030,
)


def decoded(message: Any) -> Frame:
    """The frame without the message of its tick."""
    frame = decode_exchange(msgspec.json.encode(message), RECEIVED)
    return msgspec.structs.replace(frame, messages=())


def test_ticker_decodes_every_field() -> None:
    """The documentation's ticker decodes field by field; its side is the taker's."""
    expected = Tick(
        time=1_666_222_102_061_769_000,
        received=RECEIVED,
        kind=Kind.TICKER,
        product_id="ETH-USD",
        price=1285.22,
        best_bid=1285.04,
        best_ask=1285.27,
        bid_size=0.46688654,
        ask_size=1.5663704,
        last_size=11.4396987,
        side=Side.BUY,
        trade_id=370843401,
        sequence=37475248783,
    )
    assert decoded(TICKER) == Frame(time=expected.time, ticks=(expected,))


def test_text_and_bytes_decode_alike() -> None:
    """A frame may be text or bytes."""
    text = msgspec.json.encode(TICKER).decode()
    assert repr(decode_exchange(text, RECEIVED)) == repr(decode_exchange(text.encode(), RECEIVED))


def assert_same(one: Tick, other: Tick) -> None:
    """Equal field by field, with NaN equal to NaN."""
    assert repr(one) == repr(other)


def test_match_has_the_takers_side() -> None:
    """A maker's sell is a taker's buy; a match has no quotes."""
    frame = decoded(MATCH)
    assert_same(frame.ticks[0], EXAMPLE_TRADE)
    assert (frame.time, frame.history, len(frame.ticks)) == (EXAMPLE_TRADE.time, (), 1)


def test_last_match_is_history() -> None:
    """The match sent on subscribing is a past trade and gives no tick."""
    frame = decoded(MATCH | {"type": "last_match"})
    assert frame.ticks == ()
    assert_same(frame.history[0], EXAMPLE_TRADE)


def test_heartbeat() -> None:
    """A heartbeat has its product and the id of the last trade."""
    message = {
        "type": "heartbeat",
        "sequence": 90,
        "last_trade_id": 20,
        "product_id": "BTC-USD",
        "time": "2014-11-07T08:19:28.464459Z",
    }
    time = 1_415_348_368_464_459_000
    beat = Heartbeat(time=time, product_id="BTC-USD", last_trade_id=20)
    assert decoded(message) == Frame(time=time, heartbeats=(beat,))


def test_subscriptions() -> None:
    """The confirmation lists the products of each channel; a channel without products has none."""
    message = {
        "type": "subscriptions",
        "channels": [
            {"name": "level2", "product_ids": ["BAND-GBP", "BAND-BTC"]},
            {"name": "ticker", "product_ids": ["YFI-BTC"], "account_ids": None},
            {"name": "status", "product_ids": None},
        ],
    }
    ack = Subscriptions(channels={"level2": ("BAND-GBP", "BAND-BTC"), "ticker": ("YFI-BTC",), "status": ()})
    assert decoded(message) == Frame(time=RECEIVED, ack=ack)


def test_error() -> None:
    """An error keeps the exchange's text."""
    message = {"type": "error", "message": "Failed to subscribe", "reason": "ETH-USD is not a valid product"}
    error = ExchangeError(message="Failed to subscribe", reason="ETH-USD is not a valid product")
    assert decoded(message) == Frame(time=RECEIVED, error=error)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "snapshot", "product_id": "BTC-USD", "bids": [["63210.11", "1.5"]], "asks": [["63210.50", "0.8"]]},
        {"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", "63210.11", "0.30000000"]]},
        {"type": "never heard of", "price": "nonsense", "time": 7},
    ],
)
def test_other_types_are_ignored_by_name(message: dict[str, Any]) -> None:
    """The order book and unknown types are ignored by name, so that they can be counted."""
    assert decoded(message) == Frame(time=RECEIVED, ignored=message["type"])


@pytest.mark.parametrize("empty", ["", "0", "0.00", None, 0])
def test_an_empty_book_side_is_nan(empty: str | int | None) -> None:
    """An empty bid has neither price nor size, whatever size is sent; the ask is unaffected."""
    (tick,) = decoded(TICKER | {"best_bid": empty}).ticks
    assert isnan(tick.best_bid)
    assert isnan(tick.bid_size)
    assert (tick.best_ask, tick.ask_size) == (1285.27, 1.5663704)


def test_absent_fields_are_missing_values() -> None:
    """A ticker of only product and price is a tick of only product and price, at the time of receipt."""
    (tick,) = decoded({"type": "ticker", "product_id": "ETH-USD", "price": "1285.22"}).ticks
    bare = Tick(time=RECEIVED, received=RECEIVED, kind=Kind.TICKER, product_id="ETH-USD", price=1285.22)
    assert_same(tick, bare)


def test_empty_fields_are_missing_values() -> None:
    """An empty field equals an absent one."""
    empty = {"best_bid": "", "best_ask": "", "best_bid_size": "", "best_ask_size": "", "last_size": "", "side": ""}
    (tick,) = decoded(TICKER | empty | {"time": "", "trade_id": None, "sequence": None}).ticks
    bare = Tick(time=RECEIVED, received=RECEIVED, kind=Kind.TICKER, product_id="ETH-USD", price=1285.22)
    assert_same(tick, bare)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"price": "0"}, "$.price"),
        ({"price": "-1"}, "$.price"),
        ({"price": "nan"}, "$.price"),
        ({"price": "inf"}, "$.price"),
        ({"price": "1e999"}, "$.price"),
        ({"price": ""}, "$.price"),
        ({"price": "12,5"}, "$.price"),
        ({"price": None}, "$.price"),
        ({"price": True}, "$.price"),
        ({"price": ["1"]}, "$.price"),
        ({"best_bid": "-1"}, "$.best_bid"),
        ({"best_ask": "inf"}, "$.best_ask"),
        ({"best_bid_size": "-0.5"}, "$.best_bid_size"),
        ({"last_size": "-1"}, "$.last_size"),
        ({"time": "yesterday"}, "$.time"),
        ({"time": 1700000000}, "$.time"),
        ({"time": "9999-01-01T00:00:00Z"}, "$.time"),
        ({"side": "short"}, "$.side"),
        ({"product_id": ""}, "$.product_id"),
        ({"product_id": 5}, "$.product_id"),
        ({"trade_id": 2**63}, "$.trade_id"),
        ({"sequence": -2}, "$.sequence"),
        ({"type": 5}, "$.type"),
    ],
)
def test_a_fault_is_located(change: dict[str, Any], path: str) -> None:
    """An invalid value is refused with its path."""
    with pytest.raises(MalformedTick) as caught:
        decoded(TICKER | change)
    assert caught.value.path == path
    assert str(caught.value).endswith(f"at {path}")


@pytest.mark.parametrize("field", ["product_id", "price"])
def test_a_ticker_needs_product_and_price(field: str) -> None:
    """A missing field is located at the field."""
    with pytest.raises(MalformedTick, match="missing") as caught:
        decoded({key: value for key, value in TICKER.items() if key != field})
    assert caught.value.path == f"$.{field}"


@pytest.mark.parametrize("field", ["product_id", "price", "size", "side", "time", "trade_id"])
def test_a_match_needs_all_of_a_trade(field: str) -> None:
    """A match without one of a trade's fields is malformed."""
    with pytest.raises(MalformedTick, match="missing") as caught:
        decoded({key: value for key, value in MATCH.items() if key != field})
    assert caught.value.path == f"$.{field}"


@pytest.mark.parametrize(
    "frame",
    [b"", b"null", b"[]", b'"ticker"', b"{}", b'{"type":"ticker"', b'{"price":NaN}', b"\xff\xfe", b"[" * 100_000],
)
def test_invalid_messages_are_malformed(frame: bytes) -> None:
    """Broken JSON, JSON that is not an object and JSON without a type raise only MalformedTick."""
    with pytest.raises(MalformedTick) as caught:
        decode_exchange(frame, RECEIVED)
    assert caught.value.path in {"$", "$.type"}
