"""One contract for the codecs of all protocols, on the frames of ``codec_samples``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.feeds.codec_samples import RECEIVED, SAMPLES, TIME, Samples, frames_of, packed
from tests.tape.strategies import read_all
from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.protocol import FeedProtocol, SubscriptionCheck, VenueCodec
from volspike.feeds.refusals import Refusals
from volspike.feeds.venues import all_protocols
from volspike.market import MISSING_ID, Kind, Side, Tick, Ticks
from volspike.tape.write import frame_lines

BUILT_IN = tuple(SAMPLES)
NEVER = 2**62


@pytest.fixture(params=BUILT_IN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def samples(name: str) -> Samples:
    return SAMPLES[name]


@pytest.fixture
def protocol(name: str) -> FeedProtocol:
    return all_protocols()[name]


@pytest.fixture
def codec(protocol: FeedProtocol, samples: Samples) -> VenueCodec:
    return protocol.codec((samples.product, samples.other))


def only_tick(frame: Frame) -> Tick:
    assert not frame.faults
    assert not frame.history
    (tick,) = frame.ticks
    return tick


def content(frame: Frame) -> set[str]:
    """The fields of a frame that are not empty, except its time and number."""
    fields = msgspec.structs.asdict(frame)
    return {key for key, value in fields.items() if value and key not in {"time", "sequence"}}


def test_every_protocol_has_samples() -> None:
    """The contract covers every built-in protocol, and each is listed under its own name."""
    assert set(all_protocols()) >= set(BUILT_IN)
    assert all(protocol.name == key for key, protocol in all_protocols().items())


def test_trade(codec: VenueCodec, samples: Samples) -> None:
    """A trade has our product, the exchange's time in ns, price, size, id, and the taker's side."""
    tick = only_tick(codec.decode(samples.buy, RECEIVED))
    assert (tick.kind, tick.product_id, tick.time, tick.received) == (Kind.TRADE, samples.product, TIME, RECEIVED)
    assert (tick.price, tick.last_size, tick.trade_id) == (100.5, 0.25, samples.trade_id)
    assert tick.side is Side.BUY
    assert only_tick(codec.decode(samples.sell, RECEIVED)).side is Side.SELL


def test_quote(codec: VenueCodec, samples: Samples) -> None:
    """A quote has both sides with their sizes, and the price of the last trade."""
    codec.decode(samples.buy, RECEIVED)
    tick = only_tick(codec.decode(samples.quote, RECEIVED))
    assert (tick.kind, tick.product_id, tick.time) == (Kind.TICKER, samples.product, samples.quote_time)
    assert (tick.best_bid, tick.bid_size, tick.best_ask, tick.ask_size) == (100.0, 2.0, 101.5, 3.0)
    assert tick.price == 100.5


@pytest.mark.parametrize("name", [key for key in SAMPLES if not key.startswith("coinbase")])
def test_quote_before_any_trade(codec: VenueCodec, samples: Samples) -> None:
    """Where quotes have no price, it is the mid-price until a trade is known, also one of the past."""
    assert only_tick(codec.decode(samples.quote, RECEIVED)).price == 100.75
    if samples.past is not None:
        codec.decode(samples.past, RECEIVED)
        assert only_tick(codec.decode(samples.quote, RECEIVED)).price == 100.5


def test_empty_side(codec: VenueCodec, samples: Samples) -> None:
    """An empty side of the book is NaN, and no tick without a price is made of it."""
    assert samples.empty_side is not None
    first = codec.decode(samples.empty_side, RECEIVED)
    assert first.ticks or first.ignored == "empty book" or first == Frame(time=RECEIVED)
    codec.decode(samples.buy, RECEIVED)
    tick = only_tick(codec.decode(samples.empty_side, RECEIVED))
    assert math.isnan(tick.best_ask)
    assert math.isnan(tick.ask_size)
    assert tick.best_bid == 100.0


@pytest.mark.parametrize("name", [key for key, each in SAMPLES.items() if each.past is not None])
def test_a_snapshot_has_no_new_trade(codec: VenueCodec, samples: Samples) -> None:
    """Trades from before the subscription are history, also where their shape is that of new ones."""
    assert samples.past is not None
    frame = codec.decode(samples.past, RECEIVED)
    assert frame.ticks == ()
    (tick,) = frame.history
    assert (tick.price, tick.side) == (100.5, Side.BUY)


@pytest.mark.parametrize("name", [key for key, each in SAMPLES.items() if each.pair is not None])
def test_several_trades_of_a_frame(codec: VenueCodec, samples: Samples) -> None:
    """The trades of a frame are in the order of the market."""
    assert samples.pair is not None
    assert [tick.price for tick in codec.decode(samples.pair, RECEIVED).ticks] == [100.5, 101.5]


@pytest.mark.parametrize("name", [key for key, each in SAMPLES.items() if each.pair is not None])
def test_the_valid_rest_of_a_damaged_frame(codec: VenueCodec, samples: Samples) -> None:
    """A malformed trade is a fault that names its place and product; the others are kept."""
    assert samples.pair is not None
    frame = codec.decode(samples.pair.replace(b"100.5", b"-100.5"), RECEIVED)
    assert [tick.price for tick in frame.ticks] == [101.5]
    (damage,) = frame.faults
    assert damage.products == (samples.product,)
    assert damage.lost == 1
    assert "-100.5" in damage.error.reason
    assert damage.error.path.startswith(("$.data[0].", "$.events[0].trades[1]."))


def test_heartbeats(codec: VenueCodec, samples: Samples) -> None:
    """Each sign of life without data is a heartbeat."""
    assert samples.heartbeats
    for data in samples.heartbeats:
        frame = codec.decode(data, RECEIVED)
        assert len(frame.heartbeats) == 1
        assert content(frame) == {"heartbeats"}


def test_acks(codec: VenueCodec, samples: Samples) -> None:
    """A confirmation names the channels and our products that it confirms."""
    assert samples.acks
    for data, channels in samples.acks.items():
        ack = codec.decode(data, RECEIVED).ack
        assert ack is not None
        assert ack.channels == channels


def test_errors(codec: VenueCodec, samples: Samples) -> None:
    """An error has the exchange's text, also if it refuses only one product."""
    assert samples.errors
    for data, text in samples.errors.items():
        error = codec.decode(data, RECEIVED).error
        assert error is not None
        assert text in f"{error.message} {error.reason}"


def test_a_refused_product(codec: VenueCodec, protocol: FeedProtocol, samples: Samples) -> None:
    """An error names the product in the venue's spelling, and is understood to refuse that product only."""
    refused = samples.product.replace("BTC", "XYZ")
    error = codec.decode(samples.refusal, RECEIVED).error
    assert error is not None
    refusals = Refusals((samples.product, refused), symbol=protocol.symbol)
    assert refusals.named_in(f"{error.message} {error.reason}") == (refused,)


def test_ignored_frames(codec: VenueCodec, samples: Samples) -> None:
    """A frame that is not used is named and has no content."""
    assert samples.ignored
    for data, kind in samples.ignored.items():
        frame = codec.decode(data, RECEIVED)
        assert frame.ignored == kind
        assert content(frame) == {"ignored"}


@pytest.mark.parametrize("name", [key for key, each in SAMPLES.items() if each.closing is not None])
def test_announced_end(codec: VenueCodec, samples: Samples) -> None:
    """A frame by which the exchange announces the end of the connection is marked, and no other."""
    assert samples.closing is not None
    assert codec.decode(samples.closing, RECEIVED).is_closing
    assert not any(codec.decode(data, RECEIVED).is_closing for data in (samples.buy, *samples.ignored))


def test_text_and_bytes(protocol: FeedProtocol, samples: Samples) -> None:
    """A frame decodes the same as text."""
    for data in frames_of(samples):
        one, other = (protocol.codec((samples.product, samples.other)) for _ in range(2))
        assert repr(one.decode(data, RECEIVED)) == repr(other.decode(data.decode(), RECEIVED))


def variants(content: Any, **replaced: Any) -> Iterator[tuple[str, Any]]:
    """The JSON value with one of its fields, at any depth, removed, or replaced by each of the values."""
    keys = list(content) if isinstance(content, dict) else range(len(content))
    for key in keys:
        if isinstance(content, dict):
            yield str(key), {other: value for other, value in content.items() if other != key}
        if isinstance(content[key], dict | list):
            for path, part in variants(content[key], **replaced):
                copy = content.copy()
                copy[key] = part
                yield f"{key}.{path}", copy
        else:
            for label, value in replaced.items():
                copy = content.copy()
                copy[key] = value
                yield f"{key}={label}", copy


def decoded_or_refused(codec: VenueCodec, data: bytes) -> tuple[Frame, MalformedTick | None]:
    try:
        return codec.decode(data, RECEIVED), None
    except MalformedTick as error:
        return Frame(time=RECEIVED), error


def test_a_frame_with_one_bad_field(protocol: FeedProtocol, samples: Samples) -> None:
    """Without a field, or with a value of another kind in it, a trade is refused or unchanged in what remains."""
    refused: Counter[str] = Counter()
    bad: dict[str, Any] = {"negative": "-1", "text": "x", "nothing": None, "zero": "0", "object": {}, "infinite": "inf"}
    for path, content in variants(json.loads(samples.buy), **bad):
        codec, data = protocol.codec((samples.product, samples.other)), packed(content)
        frame, fault = decoded_or_refused(codec, data)
        if fault is not None:
            refused[path.rpartition(".")[2]] += 1
            assert fault.path.startswith("$")
            damage = codec.damage(data, fault)
            assert set(damage.products) <= {samples.product}
            assert damage.lost in {1, -1}
        for tick in (*frame.ticks, *frame.history):
            assert tick.price == 100.5
            assert tick.last_size in {0.25, 0.0}
            assert tick.side in {Side.BUY, Side.UNKNOWN}
            assert tick.time in {TIME, RECEIVED}
    assert sum(refused.values()) >= 15


def test_a_refused_trade_names_its_product(protocol: FeedProtocol, samples: Samples) -> None:
    """The loss of a trade with an invalid price is one message of its product."""
    codec = protocol.codec((samples.product, samples.other))
    data = samples.buy.replace(b"100.5", b"-100.5")
    with pytest.raises(MalformedTick, match=r"-100\.5") as caught:
        codec.decode(data, RECEIVED)
    damage = codec.damage(data, caught.value)
    assert (damage.products, damage.lost) == ((samples.product,), 1)


def test_truncated_frames(protocol: FeedProtocol, samples: Samples) -> None:
    """Each start of a frame is refused, and its loss is attributed to no other product."""
    for data in (samples.buy, samples.quote):
        for end in range(len(data)):
            codec = protocol.codec((samples.product, samples.other))
            with pytest.raises(MalformedTick) as caught:
                codec.decode(data[:end], RECEIVED)
            damage = codec.damage(data[:end], caught.value)
            assert set(damage.products) <= {samples.product}
            assert damage.lost in {1, -1}


def test_invalid_numbers_of_json(codec: VenueCodec, samples: Samples) -> None:
    """``NaN`` is no price, and a frame with it in a field that is not used is valid."""
    codec.decode(samples.buy, RECEIVED)
    with pytest.raises(MalformedTick):
        codec.decode(samples.buy.replace(b'"100.50000000"', b"100.5").replace(b"100.5", b"NaN"), RECEIVED)
    content = json.loads(samples.buy) | {"unused": math.nan}
    assert codec.decode(packed(content), RECEIVED).ticks
    with pytest.raises(MalformedTick):
        codec.decode(b'{"unknown":"NaN"}', RECEIVED)


def test_products_are_those_requested(protocol: FeedProtocol, samples: Samples) -> None:
    """A symbol is mapped back to the product that was requested, whatever a rule would make of it."""
    spelled = protocol.symbol("BTC-USDT" if b"BTCUSDT" in samples.buy or b"BTC-USDT" in samples.buy else "BTC-USD")
    for symbol in ("1INCH-EUR", "USDC-USDT", "X-BTC", "BTC-USDT-SWAP"):
        product = samples.product.rpartition(":")[0]
        product = f"{product}:{symbol}" if product else symbol
        data = samples.buy.replace(spelled.encode(), protocol.symbol(symbol).encode())
        assert only_tick(protocol.codec((product,)).decode(data, RECEIVED)).product_id == product


def test_products_that_were_not_requested(protocol: FeedProtocol, samples: Samples) -> None:
    """Data of a product that was not requested has its canonical name all the same."""
    assert only_tick(protocol.codec((samples.other,)).decode(samples.buy, RECEIVED)).product_id == samples.product


def test_subscribe_messages(protocol: FeedProtocol, samples: Samples) -> None:
    """Every product is requested once on every channel, in messages within the venue's limits."""
    prefix = samples.product.rpartition(":")[0]
    symbols = [f"C{number:03d}-USD" for number in range(240)]
    products = tuple(f"{prefix}:{symbol}" if prefix else symbol for symbol in symbols)
    settings = FeedSettings(products=products)
    messages = protocol.subscribe_messages(settings, products)
    channels = [channel for channel in protocol.channels(settings) if channel != "heartbeats"]
    counts: Counter[str] = Counter()
    for message in messages:
        found = [each for symbol in symbols for each in names_in(message, protocol.symbol(symbol))]
        most = protocol.limits.arguments_per_message
        assert most is None or len(found) <= most
        counts.update(found)
        json.loads(message)
    per_product = 1 if protocol.name == "coinbase-exchange" else len(channels)
    assert set(counts.values()) == {per_product}
    assert len(counts) == len(symbols)


def names_in(message: str, symbol: str) -> list[str]:
    """The symbol as often as the message names it, whatever the case."""
    return [symbol] * message.upper().count(symbol.upper())


def test_confirmation_of_a_subscription(protocol: FeedProtocol, samples: Samples) -> None:
    """Confirmations and the first data of a product confirm all that was requested for it."""
    settings = FeedSettings(products=(samples.product,), matches=True)
    check = SubscriptionCheck(protocol.requested_products(settings), protocol.data_name)
    codec = protocol.codec((samples.product,))
    for data in samples.acks:
        check.update(codec.decode(data, RECEIVED))
    assert not check.is_confirmed
    for data in (samples.buy, samples.quote, *samples.heartbeats):
        check.update(codec.decode(data, RECEIVED))
    assert check.is_confirmed


def test_a_tape_gives_the_same_ticks(protocol: FeedProtocol, samples: Samples, tmp_path: Path) -> None:
    """The lines that a recorder writes for the frames read back as exactly their ticks."""
    codec = protocol.codec((samples.product, samples.other))
    frames = [codec.decode(data, RECEIVED + place) for place, data in enumerate(frames_of(samples))]
    tape = tmp_path / "ticks.ndjson"
    tape.write_bytes(b"".join(line for frame in frames for line in frame_lines(frame)))
    ticks = [tick for frame in frames for tick in frame.ticks]
    assert len(ticks) >= 4
    assert repr(sorted(read_all(tape), key=order)) == repr(sorted(Ticks.of(ticks), key=order))


def order(tick: Tick) -> tuple[int, str]:
    return tick.received, repr(tick)


# rules of single venues


def codec_of(name: str) -> VenueCodec:
    return all_protocols()[name].codec((SAMPLES[name].product, SAMPLES[name].other))


def test_units_of_binance() -> None:
    """Times in ms and in µs are recognised by their size."""
    data = SAMPLES["binance"].buy.replace(str(TIME // 1000).encode(), str(TIME // 1_000_000).encode())
    assert only_tick(codec_of("binance").decode(data, RECEIVED)).time == TIME


def test_aggregated_trades_of_binance() -> None:
    """An aggregated trade has the last id of its trades, and the first one apart."""
    event = {
        "e": "aggTrade",
        "E": TIME // 1_000_000,
        "s": "BTCUSDT",
        "a": 5,
        "p": "100.5",
        "q": "0.25",
        "f": 7,
        "l": 9,
        "T": TIME // 1_000_000,
        "m": True,
    }
    frame = codec_of("binance").decode(packed({"stream": "btcusdt@aggTrade", "data": event}), RECEIVED)
    assert (only_tick(frame).trade_id, only_tick(frame).side, frame.first_ids) == (9, Side.SELL, (7,))


def test_shutdown_of_binance_in_a_combined_stream() -> None:
    """The announcement is recognised within an envelope as well."""
    data = packed({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": TIME // 1_000_000}})
    assert codec_of("binance").decode(data, RECEIVED).is_closing


def test_aggregated_trades_of_okx() -> None:
    """``count`` trades end with the id of the message."""
    data = SAMPLES["okx"].buy.replace(b'"count":"1"', b'"count":"3"')
    frame = codec_of("okx").decode(data, RECEIVED)
    assert (only_tick(frame).trade_id, frame.first_ids) == (12345, (12343,))


def test_first_trade_of_okx() -> None:
    """After the confirmation, a trade from 250 ms before it is new, and an older one is history."""
    ack = next(iter(SAMPLES["okx"].acks))
    for late, is_past in ((250_000_000, False), (250_000_001, True), (NEVER - TIME, True)):
        codec = codec_of("okx")
        codec.decode(ack, TIME + late)
        frame = codec.decode(SAMPLES["okx"].buy, TIME + late)
        assert (len(frame.history), len(frame.ticks)) == ((1, 0) if is_past else (0, 1))
        assert len(codec.decode(SAMPLES["okx"].buy, TIME + late).ticks) == 1


def book(kind: str, bids: list[list[str]], asks: list[list[str]], update: int = 5) -> bytes:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": update, "seq": 7}
    return packed({"topic": "orderbook.1.BTCUSDT", "type": kind, "ts": 1, "data": data, "cts": TIME // 1_000_000})


def sides(frame: Frame) -> tuple[float, ...]:
    tick = only_tick(frame)
    return tick.best_bid, tick.bid_size, tick.best_ask, tick.ask_size


def test_book_of_bybit() -> None:
    """A delta changes its side only, whichever order its levels have; a snapshot replaces both."""
    codec = codec_of("bybit")
    assert codec.decode(book("delta", [["99", "1"]], []), RECEIVED).ignored == "orderbook.1 before its snapshot"
    assert sides(codec.decode(book("snapshot", [["100", "2"]], [["101", "3"]]), RECEIVED)) == (100, 2, 101, 3)
    assert sides(codec.decode(book("delta", [["99", "1"], ["100", "0"]], []), RECEIVED)) == (99, 1, 101, 3)
    assert sides(codec.decode(book("delta", [["99", "0"], ["98", "4"]], []), RECEIVED)) == (98, 4, 101, 3)
    assert sides(codec.decode(book("delta", [], [["101", "9"]]), RECEIVED)) == (98, 4, 101, 9)
    assert sides(codec.decode(book("snapshot", [["90", "1"]], [["91", "1"]]), RECEIVED)) == (90, 1, 91, 1)
    assert sides(codec.decode(book("delta", [["80", "1"]], [["81", "1"]], update=1), RECEIVED)) == (80, 1, 81, 1)


@pytest.mark.parametrize("bad", [["100", "-2"], ["inf", "2"], ["-1", "2"], ["x", "2"], ["100"]])
def test_damaged_book_of_bybit(bad: list[str]) -> None:
    """After a damaged message no delta is believed until the next snapshot."""
    codec = codec_of("bybit")
    codec.decode(book("snapshot", [["100", "2"]], [["101", "3"]]), RECEIVED)
    data = book("delta", [bad], [])
    with pytest.raises(MalformedTick) as caught:
        codec.decode(data, RECEIVED)
    assert codec.damage(data, caught.value).products == ("bybit:BTC-USDT",)
    assert codec.decode(book("delta", [], [["101", "4"]]), RECEIVED).ticks == ()
    assert codec.decode(book("snapshot", [["100", "2"]], [["101", "3"]]), RECEIVED).ticks


@pytest.mark.parametrize("number", ["20f43950-d8dd-5b31-9112-a178eb6023af", "9" * 30, "", "-5", "١"])
def test_trade_ids_of_bybit(number: str) -> None:
    """An id that is no number, or does not fit its column, is missing."""
    content = json.loads(SAMPLES["bybit"].buy)
    content["data"][0]["i"] = number
    assert only_tick(codec_of("bybit").decode(packed(content), RECEIVED)).trade_id == MISSING_ID


def test_only_bybit_and_exchange_cannot_be_verified() -> None:
    """A protocol is verifiable if trades or frames are numbered without holes."""
    assert {name for name in BUILT_IN if not all_protocols()[name].verifiable} == {"bybit", "coinbase-exchange"}
