"""Damage, unrequested products and their gaps, from the decoder of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.feeds.scripted import of
from volspike.feeds.decoder import LONGEST_FAULT_NS, EventDecoder
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState
from volspike.feeds.inbox import Arrival, ClockStep, Entry
from volspike.feeds.venues import all_protocols
from volspike.market import Cause, Gap, Tick, format_time

START = 1_767_225_600_000_000_000
STEP = 1_000_000
PRODUCTS = ("BTC-USD", "ETH-USD")

QUOTE = {"product_id": "BTC-USD", "price": "100", "best_bid": "99", "best_ask": "101"}
OTHER = QUOTE | {"product_id": "ETH-USD"}

COINBASE_PROTOCOLS = ("coinbase", "coinbase-exchange")
BAD_PRICES = [0, "0", -1, "-1", "NaN", "nan", "1e400", "inf", "", None, "missing", "dear", True, [1], {"a": 1}]
RAW_PRICES = [b"NaN", b"-Infinity", b"1e400", b"01", b"1.2.3"]


def advanced_trade(*quotes: dict[str, Any], channel: str = "ticker") -> bytes:
    name = {"ticker": "tickers", "market_trades": "trades"}[channel]
    event = {"type": "update", name: quotes}
    return msgspec.json.encode(
        {"channel": channel, "timestamp": "2026-01-01T00:00:00Z", "sequence_num": 0, "events": [event]}
    )


def exchange(quote: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": "ticker", "time": "2026-01-01T00:00:00Z", **quote})


def with_price(quote: dict[str, Any], price: Any) -> dict[str, Any]:
    changed = quote | {"price": price}
    if price == "missing":
        del changed["price"]
    return changed


def decoder(protocol: str, products: tuple[str, ...] = PRODUCTS) -> EventDecoder:
    return EventDecoder(all_protocols()[protocol], {}, products)


def events_of(protocol: str, frames: Sequence[bytes], step: int = STEP) -> list[FeedEvent]:
    """The events of frames received ``step`` ns apart."""
    reader = decoder(protocol)
    arrivals = [Arrival(START + place * step, frame) for place, frame in enumerate(frames)]
    return [event for arrival in arrivals for event in reader.decode(arrival)]


def ticks_of(events: Sequence[FeedEvent]) -> list[Tick]:
    return [tick for event in of(FeedFrame, events) for tick in event.frame.ticks]


def assert_gap(
    events: Sequence[FeedEvent], products: tuple[str, ...], lost: int, first: int = 0, last: int = 2
) -> None:
    """One gap from the frame before the damage to the frame after it, and a fault."""
    (gap,) = of(Gap, events)
    assert (gap.start, gap.end) == (START + first * STEP, START + last * STEP)
    assert (gap.products, gap.cause, gap.lost) == (products, Cause.MALFORMED, lost)
    assert gap.detail
    assert of(FeedFault, events)


@pytest.mark.parametrize("price", BAD_PRICES)
@pytest.mark.parametrize("protocol", COINBASE_PROTOCOLS)
def test_damaged_tick_is_a_gap_of_its_product(protocol: str, price: Any) -> None:
    """In both protocols, a ticker without a valid price is one lost message of its product, before the next tick."""
    make = exchange if protocol == "coinbase-exchange" else advanced_trade
    events = events_of(protocol, [make(QUOTE), make(with_price(QUOTE, price)), make(QUOTE)])
    assert_gap(events, ("BTC-USD",), 1)
    assert isinstance(events[-2], Gap)
    assert len(ticks_of(events)) == 2


@pytest.mark.parametrize("price", RAW_PRICES)
@pytest.mark.parametrize("protocol", COINBASE_PROTOCOLS)
def test_price_that_is_no_json_number_is_a_gap(protocol: str, price: bytes) -> None:
    """A number that JSON does not have costs one message of its product where the frame can be read, else of all."""
    make = exchange if protocol == "coinbase-exchange" else advanced_trade
    damaged = make(QUOTE | {"price": "PRICE"}).replace(b'"PRICE"', price)
    events = events_of(protocol, [make(QUOTE), damaged, make(QUOTE)])
    is_known = protocol == "coinbase-exchange" or price in {b"NaN", b"-Infinity", b"1e400"}
    assert_gap(events, ("BTC-USD",) if is_known else PRODUCTS, 1 if is_known else -1)


@pytest.mark.parametrize("price", BAD_PRICES)
@pytest.mark.parametrize("channel", ["ticker", "market_trades"])
def test_valid_part_of_a_damaged_frame_is_kept(channel: str, price: Any) -> None:
    """The valid elements of a frame become ticks; only the product of the damaged one has a gap."""
    trade = {"trade_id": "7", "size": "1", "side": "BUY", "time": "2026-01-01T00:00:00Z"}
    more = trade if channel == "market_trades" else {}
    frames = [
        advanced_trade(QUOTE | more, OTHER | more, channel=channel),
        advanced_trade(with_price(QUOTE, price) | more, OTHER | more, OTHER | more, channel=channel),
        advanced_trade(OTHER | more, channel=channel),
        advanced_trade(QUOTE | more, channel=channel),
    ]
    events = events_of("coinbase", frames)
    assert_gap(events, ("BTC-USD",), 1, last=3)
    assert len(of(FeedFrame, events)) == 4
    assert len(ticks_of(events)) == 6


@pytest.mark.parametrize("protocol", COINBASE_PROTOCOLS)
@pytest.mark.parametrize("length", [0, 1, 30, 0.5, 0.9])
def test_truncated_frame_is_a_gap(protocol: str, length: float) -> None:
    """Ten truncated frames are one gap: of the product that each still names on Exchange, else of all products."""
    make = exchange if protocol == "coinbase-exchange" else advanced_trade
    frame = make(QUOTE)
    damaged = frame[: length if isinstance(length, int) else round(length * len(frame))]
    events = events_of(protocol, [frame, *[damaged] * 10, make(QUOTE)])
    is_named = protocol == "coinbase-exchange" and b'"BTC-USD"' in damaged
    assert_gap(events, ("BTC-USD",) if is_named else PRODUCTS, 10 if protocol == "coinbase-exchange" else -1, last=11)
    assert len(of(FeedFault, events)) == 10


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"channel":"heartbeats","events":7}',
        b'{"channel":"ticker","events":[]',
        b'{"channel":"ticker","timestamp":"2026-01-01T00:00:00Z","events":[{"tickers":[{"price":"1"}]}]}',
    ],
)
def test_damage_of_unknown_extent_is_a_gap_of_all_products(frame: bytes) -> None:
    """Without readable products the loss may be of any."""
    assert_gap(events_of("coinbase", [advanced_trade(OTHER), frame, advanced_trade(OTHER)]), PRODUCTS, -1)


def test_damage_of_another_name_is_a_gap_of_all_products() -> None:
    """A damaged ticker may have a damaged name as well."""
    events = events_of(
        "coinbase",
        [advanced_trade(QUOTE), advanced_trade(with_price(QUOTE, 0) | {"product_id": "BTCUSD"}), advanced_trade(QUOTE)],
    )
    assert_gap(events, PRODUCTS, 1)


def test_damage_without_a_later_tick_is_reported_after_a_second() -> None:
    """A product whose every frame is damaged has a gap per second, whatever else arrives."""
    damaged, good = advanced_trade(with_price(QUOTE, 0)), advanced_trade(OTHER)
    seconds = 5
    events = events_of("coinbase", [good, *[damaged, good] * seconds * 10], LONGEST_FAULT_NS // 20)
    gaps = of(Gap, events)
    assert seconds - 1 <= len(gaps) <= seconds
    assert all(gap.products == ("BTC-USD",) for gap in gaps)
    assert sum(gap.lost for gap in gaps) >= 10 * (seconds - 1)


def test_open_damage_is_reported_at_the_end_of_the_session() -> None:
    """Damage after the last tick is not forgotten."""
    reader = decoder("coinbase")
    reader.decode(Arrival(START, advanced_trade(QUOTE)))
    reader.decode(Arrival(START + 1, b"{"))
    (gap,) = reader.finish(START + 9)
    assert isinstance(gap, Gap)
    assert (gap.start, gap.end, gap.cause) == (START, START + 9, Cause.MALFORMED)
    assert reader.gaps == 1


def test_products_that_were_not_requested_are_rejected() -> None:
    """Their ticks are in no frame, they are counted, and each name is reported once."""
    reader = decoder("coinbase", ("BTC-USD",))
    frame = advanced_trade(OTHER, QUOTE, QUOTE | {"product_id": "DOGE-USD"})
    events = [event for place in range(3) for event in reader.decode(Arrival(START + place, frame))]
    assert [(tick.product_id, len(events)) for tick in ticks_of(events)] == [("BTC-USD", 4)] * 3
    assert [len(event.frame.messages) for event in of(FeedFrame, events)] == [1] * 3
    (error,) = of(FeedError, events)
    assert error.products == ("DOGE-USD", "ETH-USD")
    assert (reader.unrequested, reader.ticks) == (6, 3)


def timed(second: float, shift: float = 0.0, product: str = "BTC-USD") -> Arrival:
    """A ticker of the exchange's time ``second`` and ``shift``, received 50 ms after ``second``."""
    quote = QUOTE | {"product_id": product, "time": format_time(START + round((second + shift) * 1e9))}
    return Arrival(START + round(second * 1e9) + 50_000_000, exchange(quote))


def decoded(arrivals: Sequence[Arrival]) -> list[FeedEvent]:
    reader = decoder("coinbase-exchange")
    return [event for arrival in arrivals for event in reader.decode(arrival)]


@pytest.mark.parametrize("shift", [299.0, 3.2e9, -1.7e9, -3600.0])
def test_impossible_time_is_a_fault_and_a_gap(shift: float) -> None:
    """A tick 299 s or a century ahead, from 1970 or from an hour ago is rejected with its reason; no other is."""
    arrivals = [timed(second, shift if second == 30 else 0.0) for second in range(60)]
    events = decoded(arrivals)
    assert len(ticks_of(events)) == 59
    (fault,) = of(FeedFault, events)
    assert "is impossible" in fault.error.reason
    (gap,) = of(Gap, events)
    assert (gap.start, gap.end) == (arrivals[29].received, arrivals[31].received)
    assert (gap.products, gap.cause, gap.lost) == (("BTC-USD",), Cause.MALFORMED, 1)


def test_step_of_the_exchange_clock_is_one_gap() -> None:
    """When all times change together, the ticks are accepted again after the ninth, with a gap of its own."""
    events = decoded(
        [timed(second, 299.0 if second >= 30 else 0.0, product) for second in range(60) for product in PRODUCTS]
    )
    steps = [gap for gap in of(Gap, events) if gap.cause is Cause.CLOCK]
    assert [(gap.products, gap.lost) for gap in steps] == [(PRODUCTS, 0)]
    assert "+299.000 s" in steps[0].detail
    rejected = sum(gap.lost for gap in of(Gap, events) if gap.cause is Cause.MALFORMED)
    assert 120 - rejected == len(ticks_of(events))
    assert rejected == 18


def test_step_of_our_clock_is_a_gap_and_costs_no_tick() -> None:
    """A step that the intake noted is a gap; ticks on both sides of it are accepted, an impossible one is not."""
    reader = decoder("coinbase-exchange")
    after = [msgspec.structs.replace(each, received=each.received + 300 * 10**9) for each in map(timed, range(30, 60))]
    after[10] = msgspec.structs.replace(timed(40, 299.0), received=after[10].received)
    step = ClockStep(START + 30 * 10**9, after[0].received, 300 * 10**9)
    entries: list[Entry] = [*map(timed, range(30)), step, *after]
    events = [event for entry in entries for event in reader.decode(entry)]
    clock, damage = of(Gap, events)
    assert (clock.cause, clock.start, clock.end, clock.detail) == (
        Cause.CLOCK,
        step.start,
        step.end,
        "our clock was set by +300.000 s",
    )
    assert (damage.cause, damage.lost) == (Cause.MALFORMED, 1)
    assert len(ticks_of(events)) == 59


def test_only_the_first_trade_after_a_reconnection_shows_its_losses() -> None:
    """A later jump of the trade ids is a loss of the new connection."""

    def trade(symbol: str, number: int) -> bytes:
        text = f'{{"e":"trade","s":"{symbol}","t":{number},"p":"1","q":"1","T":{START // 1000},"m":true}}'
        return f'{{"stream":"{symbol.lower()}@trade","data":{text}}}'.encode()

    def state(is_connected: bool, received: int) -> FeedState:
        return FeedState(received=received, is_connected=is_connected, reason="", url="", attempt=1)

    reader = decoder("binance", ("binance:BTC-USD", "binance:ETH-USD"))
    frames = [trade("BTCUSD", 1), trade("ETHUSD", 1), trade("BTCUSD", 3), trade("ETHUSD", 2), trade("ETHUSD", 5)]
    arrivals: list[Entry] = [Arrival(START + place * STEP, frame) for place, frame in enumerate(frames)]
    closed = [state(False, START + STEP), state(True, START + STEP)]
    entries = [state(True, START), *arrivals[:2], *closed, *arrivals[2:]]
    gaps = of(Gap, [event for entry in entries for event in reader.decode(entry)])
    assert [(gap.cause, gap.products, gap.lost) for gap in gaps] == [
        (Cause.RECONNECT, ("binance:BTC-USD",), 1),
        (Cause.RECONNECT, ("binance:ETH-USD",), -1),
        (Cause.SEQUENCE, ("binance:ETH-USD",), 2),
    ]
