"""One contract for the codecs of all venues: each kind of frame, sides, units, history, damage, and any bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeds.test_any_bytes import assert_valid
from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.protocol import SubscriptionCheck, TradeIds
from volspike.feeds.venues import all_protocols
from volspike.market import MISSING_ID, Kind, Side, Tick, parse_time
from volspike.tape import TapeReport, read_ticks
from volspike.tape.write import frame_lines

RECEIVED = parse_time("2026-01-05T00:00:01Z")
TIME = parse_time("2026-01-05T00:00:00.123456Z")
TIME_MS = TIME // 1_000_000


@dataclass(frozen=True, kw_only=True)
class VenueFrames:
    """Frames of one venue about the product ``symbol``: a trade of 0.5 at 100.25 by a buyer, and quotes 100.2/100.3.

    ``quote`` has the sizes 2 and 3, ``ask_only`` is a later quote of the ask alone. ``quote_time`` is the time of a
    quote; ``acks`` confirm a request for the product; ``other`` are frames that make no tick, by their kind.
    ``damaged`` are frames with one invalid trade or quote.
    """

    protocol: str
    symbol: str
    bought: bytes
    sold: bytes
    quote: bytes
    acks: tuple[bytes, ...]
    trade_time: int = TIME
    quote_time: int = TIME
    trade_id: int = 1001
    snapshot: bytes | None = None
    heartbeat: bytes | None = None
    error: bytes = b""
    refused: str = ""
    closing: bytes | None = None
    unknown: tuple[bytes, ...] = ()
    damaged: tuple[bytes, ...] = ()
    partly: bytes | None = None
    extra: dict[str, bytes] = field(default_factory=dict)

    @property
    def product(self) -> str:
        return f"{all_protocols()[self.protocol].venue}:{self.symbol}"


BINANCE_TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":%d,"s":"BTCUSDT","t":1001,"p":"100.25000000",'
    b'"q":"0.50000000","T":%d,"m":%s,"M":true}}'
)
KRAKEN_TRADE = (
    b'{"symbol":"BTC/USD","side":"%s","price":100.25,"qty":0.5,"ord_type":"market","trade_id":1001,'
    b'"timestamp":"2026-01-05T00:00:00.123456Z"}'
)
OKX_TRADE = (
    b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1001","px":"100.25",'
    b'"sz":"0.5","side":"%s","ts":"%d","count":"%d","source":"0","seqId":7}]}'
)
BYBIT_TRADE = (
    b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":%d,"data":[{"T":%d,"s":"BTCUSDT","S":"%s","v":"0.5",'
    b'"p":"100.25","i":"1001","BT":false,"RPI":false,"seq":9}]}'
)
MS_NS = TIME_MS * 1_000_000

VENUES = (
    VenueFrames(
        protocol="binance",
        symbol="BTC-USDT",
        bought=BINANCE_TRADE % (TIME // 1000, TIME // 1000, b"false"),
        sold=BINANCE_TRADE % (TIME // 1000, TIME // 1000, b"true"),
        quote=(
            b'{"stream":"btcusdt@bookTicker","data":{"u":77,"s":"BTCUSDT","b":"100.20000000","B":"2.00000000",'
            b'"a":"100.30000000","A":"3.00000000"}}'
        ),
        quote_time=RECEIVED,
        acks=(b'{"result":null,"id":1}',),
        heartbeat=b'{"result":["btcusdt@trade"],"id":"ping"}',
        error=b'{"code":2,"msg":"Invalid request: unknown stream xyzusdt@trade","id":1}',
        refused="XYZ-USDT",
        closing=b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1767571200123}}',
        unknown=(
            b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","s":"BTCUSDT","b":[],"a":[]}}',
            b'{"stream":"!weather","data":{"e":"weather"}}',
            b'{"e":"eventStreamTerminated","E":1767571200123}',
            b'{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT","t":"no number"}}',
        ),
        damaged=(
            b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"0","q":"1","T":1,"m":true}}',
            b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":1,"p":"5","q":"1","T":1}}',
            b'{"stream":"btcusdt@bookTicker","data":{"u":7,"s":"BTCUSDT","b":"-1","B":"1","a":"5","A":"1"}}',
            b'{"stream":"btcusdt@trade","data":7}',
        ),
        extra={"milliseconds": BINANCE_TRADE % (TIME_MS, TIME_MS, b"false")},
    ),
    VenueFrames(
        protocol="kraken",
        symbol="BTC-USD",
        bought=b'{"channel":"trade","type":"update","data":[' + KRAKEN_TRADE % b"buy" + b"]}",
        sold=b'{"channel":"trade","type":"update","data":[' + KRAKEN_TRADE % b"sell" + b"]}",
        quote=(
            b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":100.2,"bid_qty":2.0,"ask":100.3,'
            b'"ask_qty":3.0,"last":99.0,"volume":1.0,"timestamp":"2026-01-05T00:00:00.123456Z"}]}'
        ),
        acks=tuple(
            b'{"method":"subscribe","result":{"channel":"%s","symbol":"BTC/USD","snapshot":true},"success":true,'
            b'"time_in":"2026-01-05T00:00:00Z","time_out":"2026-01-05T00:00:00Z"}' % channel
            for channel in (b"trade", b"ticker")
        ),
        snapshot=b'{"channel":"trade","type":"snapshot","data":[' + KRAKEN_TRADE % b"buy" + b"]}",
        heartbeat=b'{"channel":"heartbeat"}',
        error=(
            b'{"error":"Currency pair not supported XYZ/USD","method":"subscribe","success":false,"symbol":"XYZ/USD"}'
        ),
        refused="XYZ-USD",
        unknown=(
            b'{"channel":"status","type":"update","data":[{"system":"online","version":"2.0.10"}]}',
            b'{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[],"asks":[]}]}',
            b'{"channel":"weather","outlook":"restless"}',
        ),
        damaged=(
            (
                b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"up","price":1,"qty":1,'
                b'"timestamp":"2026-01-05T00:00:00Z"}]}'
            ),
            b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":-4,"ask":5}]}',
            b'{"channel":"trade","type":"update","data":7}',
        ),
        partly=(
            b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":0,"qty":1,"trade_id":'
            b'1000,"timestamp":"2026-01-05T00:00:00Z"},' + KRAKEN_TRADE % b"buy" + b"]}"
        ),
    ),
    VenueFrames(
        protocol="okx",
        symbol="BTC-USDT",
        bought=OKX_TRADE % (b"buy", TIME_MS, 1),
        sold=OKX_TRADE % (b"sell", TIME_MS, 1),
        quote=(
            b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["100.3","3","0","1"]],"bids":'
            b'[["100.2","2","0","1"]],"ts":"%d","seqId":77}]}' % TIME_MS
        ),
        trade_time=MS_NS,
        quote_time=MS_NS,
        acks=tuple(
            b'{"event":"subscribe","arg":{"channel":"%s","instId":"BTC-USDT"},"connId":"a4d3ae55"}' % channel
            for channel in (b"trades", b"bbo-tbt")
        ),
        heartbeat=b"pong",
        error=b'{"event":"error","code":"60018","msg":"channel:trades,instId:XYZ-USDT doesn\'t exist","connId":"a"}',
        refused="XYZ-USDT",
        closing=b'{"event":"notice","code":"64008","msg":"The connection will soon be closed","connId":"a"}',
        unknown=(
            b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[],"bids":[]}]}',
            b'{"event":"channel-conn-count","channel":"trades","connCount":"2","connId":"a"}',
        ),
        damaged=(
            OKX_TRADE.replace(b"100.25", b"0") % (b"buy", TIME_MS, 1),
            OKX_TRADE % (b"up", TIME_MS, 1),
            b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["5"]],"bids":[],"ts":"1"}]}',
            b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":7}',
        ),
        partly=(
            b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1000","px":"x","sz":'
            b'"1","side":"buy","ts":"1"},{"instId":"BTC-USDT","tradeId":"1001","px":"100.25","sz":"0.5","side":"buy",'
            b'"ts":"%d"}]}' % TIME_MS
        ),
        extra={"aggregate": OKX_TRADE % (b"buy", TIME_MS, 4)},
    ),
    VenueFrames(
        protocol="bybit",
        symbol="BTC-USDT",
        bought=BYBIT_TRADE % (TIME_MS, TIME_MS, b"Buy"),
        sold=BYBIT_TRADE % (TIME_MS, TIME_MS, b"Sell"),
        quote=(
            b'{"topic":"orderbook.1.BTCUSDT","ts":1,"type":"snapshot","data":{"s":"BTCUSDT","b":[["100.2","2"]],"a":'
            b'[["100.3","3"]],"u":77,"seq":5},"cts":%d}' % TIME_MS
        ),
        trade_time=MS_NS,
        quote_time=MS_NS,
        acks=(b'{"success":true,"ret_msg":"subscribe","conn_id":"a","req_id":"","op":"subscribe"}',),
        heartbeat=b'{"success":true,"ret_msg":"pong","conn_id":"a","req_id":"","op":"ping"}',
        error=(
            b'{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.XYZUSDT","conn_id":"a",'
            b'"req_id":"","op":"subscribe"}'
        ),
        refused="XYZ-USDT",
        unknown=(
            b'{"topic":"orderbook.50.BTCUSDT","ts":1,"type":"delta","data":{"s":"BTCUSDT","b":[],"a":[],"u":1}}',
            b'{"topic":"weather.BTCUSDT","type":"snapshot","ts":1,"data":{"outlook":"restless"}}',
            b'{"topic":"tickers.BTCUSDT","data":[]}',
        ),
        damaged=(
            (BYBIT_TRADE % (TIME_MS, TIME_MS, b"Buy")).replace(b"100.25", b"0"),
            BYBIT_TRADE % (TIME_MS, TIME_MS, b"Up"),
            b'{"topic":"orderbook.1.BTCUSDT","ts":1,"type":"snapshot","data":{"s":"BTCUSDT","b":[["-1","2"]],"a":[]}}',
            b'{"topic":"publicTrade.BTCUSDT","data":7}',
        ),
        partly=(
            b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{"T":1,"s":"BTCUSDT","S":"Buy","v":"1","p":'
            b'"nan","i":"7"},{"T":%d,"s":"BTCUSDT","S":"Buy","v":"0.5","p":"100.25","i":"1001"}]}' % TIME_MS
        ),
        extra={
            "uuid": (BYBIT_TRADE % (TIME_MS, TIME_MS, b"Buy")).replace(b'"1001"', b'"8f1c4a30-0001"'),
            "delta": (
                b'{"topic":"orderbook.1.BTCUSDT","ts":1,"type":"delta","data":{"s":"BTCUSDT","b":[],"a":[["100.4","4"],'
                b'["100.3","0"]],"u":78,"seq":6},"cts":%d}' % TIME_MS
            ),
            "gone": (
                b'{"topic":"orderbook.1.BTCUSDT","ts":1,"type":"delta","data":{"s":"BTCUSDT","b":[["100.2","0"]],"a":[],'
                b'"u":79,"seq":7},"cts":%d}' % TIME_MS
            ),
        },
    ),
)

every_venue = pytest.mark.parametrize("venue", VENUES, ids=[venue.protocol for venue in VENUES])


def decode(venue: VenueFrames, *frames: bytes) -> Frame:
    """The content of the last of some frames of one session."""
    codec = all_protocols()[venue.protocol].codec((venue.product,))
    decoded = [codec.decode(data, RECEIVED) for data in frames]
    return decoded[-1]


def of_venue(name: str) -> VenueFrames:
    return next(venue for venue in VENUES if venue.protocol == name)


@every_venue
def test_a_trade_has_the_takers_side(venue: VenueFrames) -> None:
    """Price, size, id and time in the unit of the venue; received is ours."""
    for data, side in ((venue.bought, Side.BUY), (venue.sold, Side.SELL)):
        frame = decode(venue, data)
        expected = Tick(
            time=venue.trade_time,
            received=RECEIVED,
            kind=Kind.TRADE,
            product_id=venue.product,
            price=100.25,
            last_size=0.5,
            side=side,
            trade_id=venue.trade_id,
        )
        assert [repr(tick) for tick in frame.ticks] == [repr(expected)]
        assert frame.time == venue.trade_time
        assert not frame.history


@every_venue
def test_a_quote_has_the_price_of_the_last_trade(venue: VenueFrames) -> None:
    """Both sides with their sizes; the price is the mid until a trade is known."""
    (tick,) = decode(venue, venue.quote).ticks
    assert (tick.kind, tick.product_id, tick.time) == (Kind.TICKER, venue.product, venue.quote_time)
    assert (tick.best_bid, tick.bid_size, tick.best_ask, tick.ask_size) == (100.2, 2.0, 100.3, 3.0)
    assert tick.price == (100.2 + 100.3) / 2
    assert isnan(tick.last_size)
    (tick,) = decode(venue, venue.bought, venue.quote).ticks
    assert tick.price == 100.25


@every_venue
def test_the_past_makes_no_tick(venue: VenueFrames) -> None:
    """A snapshot of trades, or OKX's first message if it is older than the confirmation, is history."""
    if venue.snapshot is not None:
        frame = decode(venue, venue.snapshot)
    elif venue.protocol == "okx":
        frame = decode(venue, *venue.acks, venue.bought)
    else:
        return
    assert not frame.ticks
    assert [tick.trade_id for tick in frame.history] == [venue.trade_id]


@every_venue
def test_a_request_is_confirmed(venue: VenueFrames) -> None:
    """Acknowledgements and the first data confirm everything that was requested."""
    protocol = all_protocols()[venue.protocol]
    codec = protocol.codec((venue.product,))
    check = SubscriptionCheck(protocol.requested_products(FeedSettings(products=(venue.product,))), protocol.data_name)
    assert not check.is_confirmed
    for data in (*venue.acks, venue.quote):
        check.update(codec.decode(data, RECEIVED))
    assert check.missing() == {}


@every_venue
def test_other_frames_make_no_tick(venue: VenueFrames) -> None:
    """Heartbeats, errors, notices of an end, unknown channels and types: each is known for what it is."""
    if venue.heartbeat is not None:
        assert decode(venue, venue.heartbeat).heartbeats
    error = decode(venue, venue.error).error
    assert error is not None
    assert error.message
    if venue.closing is not None:
        assert decode(venue, venue.closing).is_closing
    for data in venue.unknown:
        frame = decode(venue, data)
        assert frame.ignored
        assert not frame.ticks
        assert not frame.history
        assert not frame.is_closing


@every_venue
def test_a_damaged_message_is_refused_with_its_product(venue: VenueFrames) -> None:
    """No invalid number becomes a tick; the product is known if the bytes name one."""
    codec = all_protocols()[venue.protocol].codec((venue.product,))
    for data in venue.damaged:
        with pytest.raises(MalformedTick) as fault:
            codec.decode(data, RECEIVED)
        damage = codec.damage(data, fault.value)
        assert set(damage.products) <= {venue.product}
    for data in (venue.bought, venue.quote):
        broken = data[: data.index(b"100.2")]
        with pytest.raises(MalformedTick) as fault:
            codec.decode(broken, RECEIVED)
        assert codec.damage(broken, fault.value).products == (venue.product,)


@every_venue
def test_the_valid_rest_of_a_frame_is_kept(venue: VenueFrames) -> None:
    """An invalid element next to a valid one is a fault of one message."""
    if venue.partly is None:
        return
    frame = decode(venue, venue.partly)
    assert [tick.trade_id for tick in frame.ticks] == [venue.trade_id]
    (damage,) = frame.faults
    assert (damage.products, damage.lost) == ((venue.product,), 1)


@every_venue
def test_a_refused_product_is_recognised(venue: VenueFrames) -> None:
    """An error names the product in the venue's spelling."""
    from volspike.feeds.refusals import Refusals  # noqa: PLC0415

    protocol = all_protocols()[venue.protocol]
    refused = f"{protocol.venue}:{venue.refused}"
    refusals = Refusals((venue.product, refused), symbol=protocol.symbol)
    error = decode(venue, venue.error).error
    assert error is not None
    assert refusals.named_in(f"{error.message} {error.reason}") == (refused,)


@every_venue
def test_requests_stay_within_the_limits(venue: VenueFrames) -> None:
    """Every product is requested once per channel, in batches that the venue accepts."""
    protocol = all_protocols()[venue.protocol]
    products = tuple(f"{protocol.venue}:P{number}-USDT" for number in range(60))
    settings = FeedSettings(products=products)
    messages = protocol.subscribe_messages(settings, products)
    named: Counter[str] = Counter()
    for message in messages:
        request = msgspec.json.decode(message)
        params = request.get("params")
        names = params["symbol"] if isinstance(params, dict) else params or request["args"]
        assert len(names) <= (protocol.limits.arguments_per_message or len(names))
        channel = params["channel"] if isinstance(params, dict) else ""
        named.update(f"{channel}{name}" for name in names)
    assert set(named.values()) == {1}
    assert len(named) == len(products) * len(protocol.channels(settings))


@every_venue
def test_a_recorded_frame_reads_back_as_the_same_ticks(venue: VenueFrames, tmp_path: Path) -> None:
    """The tape of a live session gives a replay exactly the ticks of the live system."""
    codec = all_protocols()[venue.protocol].codec((venue.product,))
    ticks: list[Tick] = []
    lines: list[bytes] = []
    for number, data in enumerate((venue.quote, venue.bought, venue.quote, venue.sold, *venue.extra.values())):
        frame = codec.decode(data, RECEIVED + number)
        ticks += frame.ticks
        lines += frame_lines(frame)
    path = tmp_path / "ticks.ndjson"
    path.write_bytes(b"".join(lines))
    report = TapeReport()
    read = [tick for part in read_ticks([path], report=report) for tick in part]
    assert [repr(tick) for tick in read] == [repr(tick) for tick in ticks]
    assert report.rejected == 0


def test_binance_times_may_be_milliseconds() -> None:
    """Without ``timeUnit`` the same fields are in milliseconds."""
    venue = of_venue("binance")
    (tick,) = decode(venue, venue.extra["milliseconds"]).ticks
    assert tick.time == MS_NS


def test_okx_states_the_first_of_several_trades() -> None:
    """``count`` trades up to the id; a frame of single trades states none."""
    venue = of_venue("okx")
    assert decode(venue, venue.extra["aggregate"]).first_ids == (998,)
    assert decode(venue, venue.bought).first_ids == ()


def test_bybit_deltas_change_one_side() -> None:
    """The other side is that before; a level of size 0 is gone; a delta without a snapshot makes no tick."""
    venue = of_venue("bybit")
    (tick,) = decode(venue, venue.quote, venue.extra["delta"]).ticks
    assert (tick.best_bid, tick.best_ask, tick.ask_size) == (100.2, 100.4, 4.0)
    frame = decode(venue, venue.bought, venue.quote, venue.extra["delta"], venue.extra["gone"])
    (tick,) = frame.ticks
    assert isnan(tick.best_bid)
    assert (tick.best_ask, tick.price) == (100.4, 100.25)
    assert decode(venue, venue.extra["delta"]).ticks == ()


def test_ids_that_are_no_numbers_are_missing() -> None:
    """Bybit's derivatives have UUIDs."""
    venue = of_venue("bybit")
    assert decode(venue, venue.extra["uuid"]).ticks[0].trade_id == MISSING_ID


def test_what_can_be_verified_is_stated() -> None:
    """Only a feed whose frames or trades are numbered by one can show a loss."""
    for protocol in all_protocols().values():
        is_numbered = protocol.trade_ids is TradeIds.CONSECUTIVE or protocol.name == "coinbase"
        assert protocol.verifiable == is_numbered


@every_venue
@given(data=st.data())
def test_any_bytes_are_valid_or_refused(venue: VenueFrames, data: st.DataObject) -> None:
    """A frame with a part replaced or missing gives valid ticks or ``MalformedTick``, and damage is always known."""
    frames = [venue.bought, venue.quote, *venue.acks, *venue.unknown, *venue.damaged, *venue.extra.values()]
    frame = data.draw(st.sampled_from(frames))
    start = data.draw(st.integers(0, len(frame)))
    stop = data.draw(st.integers(start, len(frame)))
    patches = st.binary(max_size=6) | st.sampled_from(
        [b"NaN", b"1e999", b'"', b"{", b"[" * 3000, b"null", b"-1", b'""', b"9" * 30]
    )
    codec = all_protocols()[venue.protocol].codec((venue.product,))
    mutated = frame[:start] + data.draw(patches) + data.draw(st.sampled_from([frame[stop:], b""]))
    for _ in range(2):
        try:
            assert_valid(codec.decode(mutated, RECEIVED))
        except MalformedTick as fault:
            codec.damage(mutated, fault)


def recorded(path: Path) -> Iterator[tuple[int, bytes]]:
    """Receive time (ns UTC) and frame of each line of a recording."""
    for line in path.read_text().splitlines():
        found = re.fullmatch(r"(\d+\.\d+): (\{.*\})", line.strip())
        if found is not None:
            yield round(float(found[1]) * 1e9), found[2].encode()


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        ("binance", "binance", {"ticker": 84, "ignored": 2}),
        ("binance_futures", "binance", {"ticker": 345, "ignored": 54}),
        ("okx", "okx", {"ack": 18, "ticker": 28, "trade": 71, "history": 3}),
    ],
)
def test_recorded_frames_decode(shared_data: Path, name: str, protocol: str, expected: dict[str, int]) -> None:
    """Every frame recorded at the venue has its known content; prices and quotes agree with each other."""
    codec = all_protocols()[protocol].codec(())
    found: Counter[str] = Counter()
    for received, data in recorded(shared_data / "protocol" / "venues" / f"{name}.txt"):
        frame = codec.decode(data, received)
        found.update(tick.kind.name.lower() for tick in frame.ticks)
        found.update(["history"] * len(frame.history))
        found.update(["ack"] if frame.ack is not None else ["ignored"] if frame.ignored is not None else [])
        _assert_plausible(frame.ticks, received)
    assert found == expected


def _assert_plausible(ticks: Sequence[Tick], received: int) -> None:
    for tick in ticks:
        assert abs(received - tick.time) < 5_000_000_000
        if tick.kind is Kind.TICKER:
            assert tick.best_bid < tick.best_ask
            assert tick.best_bid * 0.99 < tick.price < tick.best_ask * 1.01
