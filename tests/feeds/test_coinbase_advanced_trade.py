"""Coinbase Advanced Trade frames, by the examples of its documentation."""

from __future__ import annotations

from math import isnan
from typing import Any

import msgspec
import pytest

from tests.feeds.coinbase_messages import QUOTE, TRADE
from volspike.errors import MalformedTick
from volspike.feeds.events import ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.market import MISSING_ID, Kind, Side, Tick, parse_time

RECEIVED = 1_700_000_000_000_000_000


def ticker(*quotes: dict[str, Any], channel: str = "ticker") -> dict[str, Any]:
    return {
        "channel": channel,
        "timestamp": "2026-06-14T05:35:45.435813533Z",
        "sequence_num": 16,
        "events": [{"type": "update", "tickers": list(quotes)}],
    }


def market_trades(kind: str, *trades: dict[str, Any]) -> dict[str, Any]:
    return {
        "channel": "market_trades",
        "timestamp": "2026-06-14T05:54:18.66623968Z",
        "sequence_num": 0,
        "events": [{"type": kind, "trades": list(trades)}],
    }


def decoded(message: Any) -> Frame:
    """The frame without the messages of its ticks."""
    frame = decode_advanced_trade(msgspec.json.encode(message), RECEIVED)
    return msgspec.structs.replace(frame, messages=())


def test_ticker_takes_the_envelopes_time() -> None:
    """The documentation's ticker decodes field by field, to the last nanosecond of the envelope."""
    expected = Tick(
        time=1_781_415_345_435_813_533,
        received=RECEIVED,
        kind=Kind.TICKER,
        product_id="BTC-USD",
        price=64281.7,
        best_bid=64281.7,
        best_ask=64281.71,
        bid_size=0.21558849,
        ask_size=0.02287045,
    )
    frame = decoded(ticker(QUOTE))
    assert repr(frame) == repr(Frame(time=expected.time, sequence=16, ticks=(expected,)))


def test_ticker_batch_has_no_quotes() -> None:
    """A batched ticker has no bid and no ask, and neither does its tick."""
    bare = {key: value for key, value in QUOTE.items() if not key.startswith("best_")}
    (tick,) = decoded(ticker(bare, channel="ticker_batch")).ticks
    assert tick.price == 64281.7
    assert all(isnan(value) for value in (tick.best_bid, tick.best_ask, tick.bid_size, tick.ask_size))


def test_several_tickers_keep_their_order() -> None:
    """A frame of several products gives their ticks in the order of the frame."""
    frame = decoded(ticker(QUOTE, QUOTE | {"product_id": "ETH-USD", "client_id": ""}))
    assert [tick.product_id for tick in frame.ticks] == ["BTC-USD", "ETH-USD"]


def test_snapshot_trades_are_history() -> None:
    """The first message's trades happened before the subscription; a maker's sell is a taker's buy."""
    frame = decoded(market_trades("snapshot", TRADE))
    past = Tick(
        time=parse_time("2026-06-14T05:54:17.799285Z"),
        received=RECEIVED,
        kind=Kind.TRADE,
        product_id="BTC-USD",
        price=64340.74,
        last_size=0.00746872,
        side=Side.BUY,
        trade_id=1037798145,
    )
    expected = Frame(time=1_781_416_458_666_239_680, sequence=0, history=(past,))
    assert repr(frame) == repr(expected)


def test_new_trades_come_oldest_first() -> None:
    """The exchange lists the newest trade first; the ticks are oldest first."""
    newest = TRADE | {"trade_id": "1037798146", "side": "BUY"}
    frame = decoded(market_trades("update", newest, TRADE))
    assert [(tick.trade_id, tick.side) for tick in frame.ticks] == [(1037798145, Side.BUY), (1037798146, Side.SELL)]
    assert frame.history == ()


def test_sequence_belongs_to_the_connection() -> None:
    """The sequence number counts the connection's messages: it is the frame's and not a tick's."""
    frame = decoded(ticker(QUOTE))
    assert (frame.sequence, frame.ticks[0].sequence) == (16, MISSING_ID)


@pytest.mark.parametrize("counter", [139651, "139651"])
def test_heartbeat_counter_is_number_or_text(counter: int | str) -> None:
    """The counter is an integer or, in older frames, text; the Go timestamp is parsed to the nanosecond."""
    message = {
        "channel": "heartbeats",
        "timestamp": "2026-09-05T22:10:30.260465255Z",
        "sequence_num": 4,
        "events": [
            {
                "current_time": "2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.272674714",
                "heartbeat_counter": counter,
            }
        ],
    }
    beat = Heartbeat(time=1_788_646_230_257_889_610, counter=139651)
    assert decoded(message) == Frame(time=1_788_646_230_260_465_255, sequence=4, heartbeats=(beat,))


@pytest.mark.parametrize(
    ("told", "channels"),
    [
        (
            {"heartbeats": ["heartbeats"], "ticker": ["BTC-PERP-INTX", "ETH-PERP-INTX"]},
            {"heartbeats": ("heartbeats",), "ticker": ("BTC-PERP-INTX", "ETH-PERP-INTX")},
        ),
        ({}, {}),
        ({"status": None}, {"status": ()}),
    ],
)
def test_subscriptions(told: dict[str, Any], channels: dict[str, tuple[str, ...]]) -> None:
    """The confirmation lists the products of each channel, and may be empty."""
    message = {
        "channel": "subscriptions",
        "timestamp": "2026-09-05T22:10:29.563180868Z",
        "sequence_num": 3,
        "events": [{"subscriptions": told}],
    }
    expected = Frame(time=1_788_646_229_563_180_868, sequence=3, ack=Subscriptions(channels=channels))
    assert decoded(message) == expected


def test_error_has_no_envelope() -> None:
    """An error is the one message without a channel."""
    expected = Frame(time=RECEIVED, error=ExchangeError(message="authentication failure"))
    assert decoded({"type": "error", "message": "authentication failure"}) == expected


@pytest.mark.parametrize("channel", ["l2_data", "candles", "status", "user", "never heard of"])
def test_other_channels_are_ignored_by_name(channel: str) -> None:
    """An unused channel is named and keeps its sequence number; its body is not decoded."""
    message = {
        "channel": channel,
        "timestamp": "2026-03-05T09:05:32.483569449Z",
        "sequence_num": 229,
        "events": [{"updates": [{"price_level": "nonsense", "tickers": 7}]}],
    }
    assert decoded(message) == Frame(time=1_772_701_532_483_569_449, sequence=229, ignored=channel)


def test_a_message_of_another_protocol_is_ignored() -> None:
    """A type without a channel is ignored by name."""
    assert decoded({"type": "ticker", "price": "1"}) == Frame(time=RECEIVED, ignored="ticker")


@pytest.mark.parametrize("empty", ["", "0", None])
def test_an_empty_book_side_is_nan(empty: str | None) -> None:
    """An empty ask has neither price nor size; the bid is unaffected."""
    (tick,) = decoded(ticker(QUOTE | {"best_ask": empty, "best_ask_quantity": empty})).ticks
    assert isnan(tick.best_ask)
    assert isnan(tick.ask_size)
    assert (tick.best_bid, tick.bid_size) == (64281.7, 0.21558849)


def test_without_a_timestamp_the_time_is_ours() -> None:
    """Without a time in the envelope, the frame has the time of receipt."""
    message = ticker(QUOTE)
    del message["timestamp"]
    assert decoded(message).ticks[0].time == RECEIVED


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"price": "0"}, "$.events[0].tickers[1].price"),
        ({"price": "nan"}, "$.events[0].tickers[1].price"),
        ({"price": "dear"}, "$.events[0].tickers[1].price"),
        ({"price": None}, "$.events[0].tickers[1].price"),
        ({"best_bid": "-1"}, "$.events[0].tickers[1].best_bid"),
        ({"best_ask_quantity": "inf"}, "$.events[0].tickers[1].best_ask_quantity"),
        ({"best_bid": "x"}, "$.events[0].tickers[1].best_bid"),
        ({"product_id": ""}, "$.events[0].tickers[1].product_id"),
    ],
)
def test_a_fault_in_a_ticker_is_located(change: dict[str, Any], path: str) -> None:
    """An invalid value costs its own ticker and is located through events and tickers."""
    frame = decoded(ticker(QUOTE, QUOTE | change, QUOTE))
    (fault,) = frame.faults
    assert fault.error.path == path
    assert (fault.products, fault.lost) == (("BTC-USD",) if "product_id" not in change else (), 1)
    assert len(frame.ticks) == 2
    with pytest.raises(MalformedTick) as caught:
        decoded(ticker(QUOTE | change))
    assert caught.value.path == path.replace("[1]", "[0]")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"price": "-1"}, "$.events[0].trades[1].price"),
        ({"size": "inf"}, "$.events[0].trades[1].size"),
        ({"time": "noon"}, "$.events[0].trades[1].time"),
        ({"side": "HOLD"}, "$.events[0].trades[1].side"),
        ({"trade_id": "x"}, "$.events[0].trades[1].trade_id"),
    ],
)
def test_a_fault_in_a_trade_is_located(change: dict[str, Any], path: str) -> None:
    """An invalid trade costs only itself and is located; a frame without a valid one is refused."""
    frame = decoded(market_trades("update", TRADE, TRADE | change))
    assert [(fault.error.path, fault.products, fault.lost) for fault in frame.faults] == [(path, ("BTC-USD",), 1)]
    assert len(frame.ticks) == 1
    with pytest.raises(MalformedTick):
        decoded(market_trades("update", TRADE | change))


def test_a_missing_field_is_located_at_the_field() -> None:
    """A ticker without a price is located where the price should be."""
    with pytest.raises(MalformedTick, match="missing") as caught:
        decoded(ticker({"product_id": "BTC-USD"}))
    assert caught.value.path == "$.events[0].tickers[0].price"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timestamp": "now"}, "$.timestamp"),
        ({"events": None}, "$.events"),
        ({"channel": 7}, "$.channel"),
    ],
)
def test_a_fault_in_the_envelope_is_located(change: dict[str, Any], path: str) -> None:
    """An envelope's own fields are checked too."""
    with pytest.raises(MalformedTick) as caught:
        decoded(ticker(QUOTE) | change)
    assert caught.value.path == path


@pytest.mark.parametrize("change", [{"sequence_num": "many"}, {"sequence_num": None}, {"sequence_num": -9}])
def test_a_damaged_sequence_number_costs_no_tick(change: dict[str, Any]) -> None:
    """A sequence number that is none is missing; a jump of the next one reports the doubt."""
    frame = decoded(ticker(QUOTE) | change)
    assert (frame.sequence, len(frame.ticks), frame.faults) == (MISSING_ID, 1, ())


@pytest.mark.parametrize("change", [{"timestamp": "now"}, {"timestamp": None}, {"timestamp": 7}])
def test_a_damaged_timestamp_costs_no_trade(change: dict[str, Any]) -> None:
    """Trades have times of their own."""
    frame = decoded(market_trades("update", TRADE) | change)
    assert (frame.time, len(frame.ticks)) == (RECEIVED, 1)


@pytest.mark.parametrize("event", [7, None, {}, {"type": "update", "tickers": 7}, []])
def test_a_damaged_event_costs_only_itself(event: Any) -> None:
    """The other events of the frame are kept; the loss is of unknown size."""
    message = ticker(QUOTE)
    message["events"].append(event)
    frame = decoded(message)
    (fault,) = frame.faults
    assert (fault.error.path.split(".")[1], fault.products, fault.lost) == ("events[1]", (), -1)
    assert len(frame.ticks) == 1


def test_numbers_that_json_lacks_cost_their_ticker_only() -> None:
    """NaN as a price costs one ticker of the frame; NaN as a size costs nothing but the size."""
    text = msgspec.json.encode(ticker(QUOTE | {"price": "A"}, QUOTE | {"best_bid_quantity": "B"}))
    frame = decode_advanced_trade(text.replace(b'"A"', b"NaN").replace(b'"B"', b"-Infinity"), RECEIVED)
    (fault,), (tick,) = frame.faults, frame.ticks
    assert fault.error.path == "$.events[0].tickers[0].price"
    assert isnan(tick.bid_size)
    assert msgspec.json.decode(frame.messages[0].text)["price"] == QUOTE["price"]


@pytest.mark.parametrize("frame", [b"", b"null", b"[]", b"{}", b'{"channel":"l2_data"', b"\x00", b'{"a":' * 100_000])
def test_invalid_messages_are_malformed(frame: bytes) -> None:
    """Broken JSON, JSON that is not an object and JSON without a channel raise only MalformedTick."""
    with pytest.raises(MalformedTick) as caught:
        decode_advanced_trade(frame, RECEIVED)
    assert caught.value.path in {"$", "$.channel"}
