"""Every recorded frame decodes to its known content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from volspike.feeds.events import Frame
from volspike.feeds.venues import all_protocols, decode_any
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import Kind, Side, Tick

pytestmark = pytest.mark.shared_data

RECEIVED = 1


def exchange_frames(shared_data: Path) -> list[str]:
    lines = (shared_data / "protocol/exchange_ticker_202511.ndjson").read_bytes().splitlines()
    return [msgspec.json.decode(line)["raw"] for line in lines]


def envelopes(shared_data: Path) -> list[bytes]:
    return (shared_data / "protocol/advanced_trade_envelopes_20260404.ndjson").read_bytes().splitlines()


def session_frames(shared_data: Path) -> Iterator[str]:
    with pa.input_stream(str(shared_data / "protocol/advanced_trade_20260809.jsonl.zst"), compression="zstd") as stream:
        lines = stream.read().splitlines()
    for line in map(msgspec.json.decode, lines):
        if line["t"] == "recv":
            yield line["data"]


def content(frame: Frame) -> str:
    """The kind of a frame's content."""
    if frame.ignored is not None:
        return frame.ignored
    if frame.heartbeats:
        return "heartbeat"
    if frame.ack is not None:
        return "ack"
    if frame.history:
        return "history"
    return frame.ticks[0].kind.name.lower()


@pytest.fixture(scope="module")
def session(shared_data: Path) -> list[Frame]:
    return [decode_advanced_trade(data, RECEIVED) for data in session_frames(shared_data)]


def assert_quoted(tick: Tick) -> None:
    assert 0 < tick.best_bid < tick.best_ask
    assert tick.bid_size > 0
    assert tick.ask_size > 0


def test_exchange_recording(shared_data: Path) -> None:
    """5996 tickers, all with quotes, sizes and a taker's side, and 4 acks; trade ids and sequences ascend."""
    frames = [decode_exchange(raw, RECEIVED) for raw in exchange_frames(shared_data)]
    assert Counter(map(content, frames)) == {"ticker": 5996, "ack": 4}
    ticks = [tick for frame in frames for tick in frame.ticks]
    for tick in ticks:
        assert_quoted(tick)
        assert tick.last_size > 0
        assert tick.side is not Side.UNKNOWN
    assert all(one.sequence < other.sequence for one, other in pairwise(ticks))


def test_exchange_tickers_have_the_takers_side(shared_data: Path) -> None:
    """Where the last price is one of the quotes, a buy is at the ask and a sell at the bid."""
    ticks = [tick for raw in exchange_frames(shared_data) for tick in decode_exchange(raw, RECEIVED).ticks]
    assert {tick.side for tick in ticks if tick.price == tick.best_ask} == {Side.BUY}
    assert {tick.side for tick in ticks if tick.price == tick.best_bid} == {Side.SELL}


def test_advanced_trade_envelopes(shared_data: Path) -> None:
    """3108 tickers of 15 minutes, in order."""
    frames = [decode_advanced_trade(line, RECEIVED) for line in envelopes(shared_data)]
    assert Counter(map(content, frames)) == {"ticker": 3108}
    assert sum(len(frame.ticks) for frame in frames) == 3108
    for frame in frames:
        assert_quoted(frame.ticks[0])
    assert all(one.sequence < other.sequence for one, other in pairwise(frames))


def test_advanced_trade_session(session: list[Frame]) -> None:
    """Every frame of a session decodes: the counts by kind are known, and no sequence number is missing."""
    assert Counter(map(content, session)) == {
        "l2_data": 775,
        "ticker": 160,
        "trade": 57,
        "history": 2,
        "heartbeat": 25,
        "candles": 6,
        "ack": 5,
    }
    assert [frame.sequence for frame in session] == list(range(len(session)))


def test_trades_are_in_the_order_of_the_market(session: list[Frame]) -> None:
    """Per product the trade ids ascend within and across frames, from the history to the new trades."""
    trades = [tick for frame in session for tick in (*frame.history, *frame.ticks) if tick.kind is Kind.TRADE]
    for product in ("BTC-USD", "ETH-USD"):
        ids = [trade.trade_id for trade in trades if trade.product_id == product]
        assert ids == sorted(set(ids))
        assert len(ids) > 100


def test_trades_have_the_takers_side(shared_data: Path, session: list[Frame]) -> None:
    """Each recorded maker's side becomes the opposite one."""
    makers = {
        (trade["product_id"], int(trade["trade_id"])): trade["side"]
        for data in session_frames(shared_data)
        if '"market_trades"' in data[:30]
        for event in msgspec.json.decode(data)["events"]
        for trade in event["trades"]
    }
    trades = [tick for frame in session for tick in (*frame.history, *frame.ticks) if tick.kind is Kind.TRADE]
    assert len(trades) == len(makers)
    other = {"BUY": Side.SELL, "SELL": Side.BUY}
    assert all(trade.side is other[makers[trade.product_id, trade.trade_id]] for trade in trades)


def test_the_protocol_is_recognized_from_the_frame(shared_data: Path, session: list[Frame]) -> None:
    """Without the name of the protocol, each recorded frame decodes the same."""
    for raw in exchange_frames(shared_data)[:500]:
        assert decode_any(raw, RECEIVED) == decode_exchange(raw, RECEIVED)
    for data, frame in zip(session_frames(shared_data), session, strict=True):
        assert repr(decode_any(data, RECEIVED)) == repr(frame)


def venue_frames(shared_data: Path, name: str) -> Iterator[tuple[int, str]]:
    """Time of receipt (ns UTC) and text of each frame of another venue; requests and addresses are left out."""
    for line in (shared_data / "protocol/venues" / name).read_text().splitlines():
        moment, separator, frame = line.partition(": ")
        if separator and frame.startswith("{") and moment.replace(".", "").isdecimal():
            yield int(float(moment) * 1e9), frame


def decoded(shared_data: Path, venue: str, name: str) -> list[Frame]:
    codec = all_protocols()[venue].codec(())
    return [codec.decode(frame, received) for received, frame in venue_frames(shared_data, name)]


def assert_live(ticks: list[Tick]) -> None:
    """Every tick came at most a minute after its time, and not before it."""
    assert all(-1_000_000_000 < tick.received - tick.time < 60_000_000_000 for tick in ticks)


@pytest.mark.parametrize(("name", "quotes", "trades"), [("binance.txt", 84, 2), ("binance_futures.txt", 345, 54)])
def test_binance_recordings(shared_data: Path, name: str, quotes: int, trades: int) -> None:
    """Book tickers and aggregated trades of spot and futures; no id of a trade is missing between them."""
    frames = decoded(shared_data, "binance", name)
    ticks = [tick for frame in frames for tick in frame.ticks]
    assert len(frames) == len(ticks)
    assert Counter(tick.kind for tick in ticks) == {Kind.TICKER: quotes, Kind.TRADE: trades}
    assert_live(ticks)
    for tick in ticks:
        if tick.kind is Kind.TICKER:
            assert_quoted(tick)
    following: dict[str, int] = {}
    for frame in frames:
        (tick,) = frame.ticks
        if tick.kind is Kind.TRADE:
            (first,) = frame.first_ids or (tick.trade_id,)
            assert first == following.get(tick.product_id, first)
            assert tick.side is not Side.UNKNOWN
            following[tick.product_id] = tick.trade_id + 1


def test_okx_recording(shared_data: Path) -> None:
    """Tickers and trades of three instruments, with the last trade before the subscription as history."""
    frames = decoded(shared_data, "okx", "okx.txt")
    ticks = [tick for frame in frames for tick in frame.ticks]
    history = [tick for frame in frames for tick in frame.history]
    assert Counter(tick.kind for tick in ticks) == {Kind.TICKER: 28, Kind.TRADE: 71}
    assert len(history) == 3
    assert_live([*ticks, *history])
    ids = [
        tick.trade_id for tick in (*history, *ticks) if tick.product_id == "okx:BTC-USDT" and tick.kind is Kind.TRADE
    ]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
