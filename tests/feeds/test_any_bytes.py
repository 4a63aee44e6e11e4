"""For any bytes, the decoders return a valid frame or raise MalformedTick."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeds.codec_samples import SAMPLES, frames_of
from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.venues import all_protocols, decode_any
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import Ticks

Decode = Callable[[bytes | str, int], Frame]

VENUES = ("binance", "kraken", "okx", "bybit")


def decoder_of(name: str) -> Decode:
    """Decodes a frame as the first after those of a session that are needed, and states the damage of a refused one."""
    samples, protocol = SAMPLES[name], all_protocols()[name]

    def decode(frame: bytes | str, received: int) -> Frame:
        codec = protocol.codec((samples.product, samples.other))
        codec.decode(samples.quote, received)
        try:
            return codec.decode(frame, received)
        except MalformedTick as error:
            damage = codec.damage(frame.encode(errors="surrogatepass") if isinstance(frame, str) else frame, error)
            assert damage.lost == -1 or damage.lost >= 0
            assert all(product.startswith(f"{name}:") for product in damage.products)
            raise

    return decode


DECODERS: list[Decode] = [decode_exchange, decode_advanced_trade, decode_any, *map(decoder_of, VENUES)]

REAL = [
    *(frame for name in VENUES for frame in frames_of(SAMPLES[name]) if frame.startswith(b"{")),
    (
        b'{"type":"ticker","sequence":37475248783,"product_id":"ETH-USD","price":"1285.22","best_bid":"1285.04",'
        b'"best_bid_size":"0.46688654","best_ask":"1285.27","best_ask_size":"1.56637040","side":"buy",'
        b'"time":"2022-10-19T23:28:22.061769Z","trade_id":370843401,"last_size":"11.4396987"}'
    ),
    (
        b'{"type":"match","trade_id":280232,"side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC",'
        b'"sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}'
    ),
    b'{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.4Z"}',
    b'{"type":"subscriptions","channels":[{"name":"level2","product_ids":["BAND-GBP"]}]}',
    b'{"type":"error","message":"Failed to subscribe","reason":"ETH-USD is not a valid product"}',
    (
        b'{"channel":"ticker","timestamp":"2026-06-14T05:35:45.435813533Z","sequence_num":16,"events":[{"type":"update",'
        b'"tickers":[{"type":"ticker","product_id":"BTC-USD","price":"64281.7","best_bid":"64281.7",'
        b'"best_ask":"64281.71","best_bid_quantity":"0.21558849","best_ask_quantity":"0.02287045"}]}]}'
    ),
    (
        b'{"channel":"market_trades","timestamp":"2026-06-14T05:54:18.66623968Z","sequence_num":0,"events":[{"type":'
        b'"snapshot","trades":[{"product_id":"BTC-USD","trade_id":"1037798145","price":"64340.74","size":"0.00746872",'
        b'"time":"2026-06-14T05:54:17.799285Z","side":"SELL"}]}]}'
    ),
    (
        b'{"channel":"heartbeats","timestamp":"2026-09-05T22:10:30.260465255Z","sequence_num":4,"events":[{"current_time":'
        b'"2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.272674714","heartbeat_counter":139651}]}'
    ),
    (
        b'{"channel":"subscriptions","timestamp":"2026-09-05T22:10:29.563180868Z","sequence_num":3,"events":'
        b'[{"subscriptions":{"ticker":["BTC-PERP-INTX"]}}]}'
    ),
]

ODD = (
    st.sampled_from(
        ["", "0", "-0", "nan", "inf", "-inf", "1e400", "null", "true", "1_0", " 1", "١", "0x1", "\x00", "9" * 400]
    )
    | st.sampled_from([0, -1, 2**63, 2**64, 10**400, 1e308, 5e-324, None, True])
    | st.text(max_size=20)
    | st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    | st.recursive(st.none() | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)


@st.composite
def mutated_values(draw: st.DrawFn) -> bytes:
    """A real frame with one of its values replaced by an unusual one or removed."""
    message = msgspec.json.decode(draw(st.sampled_from(REAL)))
    node: Any = message
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and draw(st.integers(0, 4)):
            node = node[key]
            continue
        if draw(st.integers(0, 9)):
            node[key] = draw(ODD)
        else:
            del node[key]
        break
    return msgspec.json.encode(message)


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    """A real frame truncated, or with a part replaced by other bytes."""
    frame = draw(st.sampled_from(REAL))
    start = draw(st.integers(0, len(frame)))
    stop = draw(st.integers(start, len(frame)))
    patches = st.binary(max_size=6) | st.sampled_from(
        [b"NaN", b"Infinity", b"1e999", b'"', b"{", b"[" * 3000, b"\\ud800"]
    )
    return frame[:start] + draw(patches) + draw(st.sampled_from([frame[stop:], b""]))


def assert_valid(frame: Frame) -> None:
    """Every number is NaN where allowed, otherwise finite and of the right sign, and fits its column."""
    ticks = (*frame.ticks, *frame.history)
    for tick in ticks:
        assert 0 < tick.price < math.inf
        assert tick.product_id
        for value in (tick.best_bid, tick.best_ask):
            assert math.isnan(value) or 0 < value < math.inf
        for value in (tick.bid_size, tick.ask_size, tick.last_size):
            assert math.isnan(value) or 0 <= value < math.inf
    assert [repr(tick) for tick in Ticks.of(ticks)] == [repr(tick) for tick in ticks]


def decode_or_refuse(decode: Decode, frame: bytes | str) -> None:
    fault = None
    try:
        assert_valid(decode(frame, 0))
    except MalformedTick as caught:
        fault = caught
    assert fault is None or (fault.path.startswith("$") and fault.reason)


@pytest.mark.parametrize("decode", DECODERS)
@given(frame=st.binary(max_size=80) | mutated_bytes())
def test_any_bytes(decode: Decode, frame: bytes) -> None:
    """Arbitrary bytes and damaged frames raise only MalformedTick."""
    decode_or_refuse(decode, frame)


@pytest.mark.parametrize("decode", DECODERS)
@given(frame=mutated_values())
def test_any_value(decode: Decode, frame: bytes) -> None:
    """A real frame with one unusual value raises only MalformedTick, and no invalid number is accepted."""
    decode_or_refuse(decode, frame)


@pytest.mark.parametrize("decode", DECODERS)
@given(text=st.text(st.characters(codec=None), max_size=40))
def test_any_text(decode: Decode, text: str) -> None:
    """Text with a lone surrogate, which is not valid Unicode, raises only MalformedTick."""
    decode_or_refuse(decode, text)
    decode_or_refuse(decode, f'{{"type":"{text}"}}')


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "opening", ["[", '{"a":', '{"type":"x","a":' + "[" * 5000, '{"channel":"ticker","events":[' * 5000]
)
def test_deep_nesting(decode: Decode, opening: str) -> None:
    """Nesting beyond the decoder's limit is malformed and not a RecursionError."""
    with pytest.raises(MalformedTick):
        decode(opening * 20_000 if len(opening) < 10 else opening, 0)


@pytest.mark.parametrize("decode", DECODERS)
def test_nested_but_closed(decode: Decode) -> None:
    """A deeply nested value in an unused field is refused even in complete JSON."""
    depth = 50_000
    frame = b'{"type":"x","channel":"ticker","events":[],"extra":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(MalformedTick, match="nested too deeply"):
        decode(frame, 0)


@pytest.mark.parametrize("frame", [b"{}", b'{"channel":null}', b'{"price":"1"}'])
def test_a_frame_of_neither_protocol(frame: bytes) -> None:
    """A frame that names neither a channel nor a type is refused."""
    with pytest.raises(MalformedTick, match="neither a channel nor a type"):
        decode_any(frame, 0)
