"""A session against a real websocket server on this machine that follows a script."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.feeds.scripted import (
    FULL_ACK,
    Script,
    ScriptedExchange,
    ack,
    closes,
    drops,
    envelope,
    frames,
    heard,
    listen,
    of,
    run,
    says,
    settings,
    some,
    ticker,
)
from volspike.config import FeedSettings, load_settings
from volspike.errors import UsageError
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, Frame
from volspike.feeds.session import FeedSession
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import Cause, Gap


def test_advanced_trade_subscribes_channel_by_channel() -> None:
    """One message per channel, with products except for heartbeats; compression is negotiated."""
    exchange = ScriptedExchange(says(ticker(0)))
    listen(exchange, frames(1), products=("BTC-USD", "ETH-USD"))
    products = ["BTC-USD", "ETH-USD"]
    assert exchange.asked == [
        [
            {"type": "subscribe", "channel": "ticker", "product_ids": products},
            {"type": "subscribe", "channel": "market_trades", "product_ids": products},
            {"type": "subscribe", "channel": "heartbeats"},
        ]
    ]
    assert "permessage-deflate" in exchange.extensions[0]


@pytest.mark.parametrize("matches", [False, True])
def test_exchange_subscribes_in_one_message(*, matches: bool) -> None:
    """One message with all channels, matches only if requested; compression can be switched off."""
    frame = b'{"type":"heartbeat","product_id":"BTC-USD","time":"2026-01-01T00:00:00Z","last_trade_id":1}'
    exchange = ScriptedExchange(says(frame), requests=1)
    listen(exchange, frames(1), protocol="coinbase-exchange", matches=matches, compression=False)
    channels = ["ticker", "heartbeat", *(["matches"] if matches else [])]
    assert exchange.asked == [[{"type": "subscribe", "product_ids": ["BTC-USD"], "channels": channels}]]
    assert exchange.extensions == [""]


def test_frames_arrive_in_order_with_bytes_and_content() -> None:
    """First the state, then each frame with its bytes, time and content; the counts agree."""
    sent = [ack(0, **FULL_ACK), ticker(1), ticker(2)]
    events, session = listen(ScriptedExchange(says(*sent)), frames(3))
    state, *rest = events
    assert isinstance(state, FeedState)
    assert (state.is_connected, state.url, state.attempt) == (True, session.url, 1)
    told = of(FeedFrame, rest)
    assert [event.data for event in told] == sent
    assert [repr(event.frame) for event in told] == [
        repr(decode_advanced_trade(event.data, event.received)) for event in told
    ]
    stats = session.stats
    assert (stats.frames, stats.bytes, stats.ticks, stats.gaps) == (3, sum(map(len, sent)), 2, 0)
    assert stats.last_received == told[-1].received
    assert stats.latency_ns == told[-1].received - told[-1].frame.ticks[0].time


def test_a_jump_is_a_gap_before_the_frame_that_reveals_it() -> None:
    """Numbers 0, 1, 5 mean three lost messages between the two frames; a repeat means no loss."""
    events, session = listen(
        ScriptedExchange(says(ticker(0), ticker(1), ticker(5), ticker(5), ticker(3), ticker(6))),
        frames(6),
        products=("BTC-USD", "ETH-USD"),
    )
    told = of(FeedFrame, events)
    assert of(Gap, events) == [
        Gap(
            start=told[1].received,
            end=told[2].received,
            products=("BTC-USD", "ETH-USD"),
            cause=Cause.SEQUENCE,
            lost=3,
            detail="messages 2 to 4",
        )
    ]
    assert isinstance(events[3], Gap)
    assert (session.stats.lost, session.stats.repeated) == (3, 2)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (closes(1008, "ErrSlowConsume"), "the exchange closed the connection: 1008 (policy violation) ErrSlowConsume"),
        (closes(1001, ""), "the exchange closed the connection: 1001 (going away)"),
        (drops, "the connection broke"),
    ],
)
def test_a_lost_connection_is_reconnected(end: Script, reason: str) -> None:
    """The state has the reason; the session subscribes again, and the gap ends with the first tick."""
    exchange = ScriptedExchange(says(ticker(0), ticker(1), then=end), says(ack(0, **FULL_ACK), ticker(1), ticker(2)))
    events, session = listen(exchange, frames(5))
    told = of(FeedFrame, events)
    states = of(FeedState, events)
    assert [(state.is_connected, state.attempt) for state in states] == [(True, 1), (False, 1), (True, 1)]
    assert states[1].reason.startswith(reason)
    gaps = of(Gap, events)
    assert gaps == [
        Gap(start=told[1].received, end=told[3].received, products=("BTC-USD",), cause=Cause.RECONNECT),
    ]
    assert events[events.index(gaps[0]) + 1] is told[3]
    assert exchange.asked[0] == exchange.asked[1]
    assert (session.stats.connections, session.stats.reconnects) == (2, 1)


def test_a_connection_that_lasted_resets_the_attempts() -> None:
    """Its loss is attempt 1, and the next attempt is attempt 1 again."""
    exchange = ScriptedExchange(says(ticker(0), then=drops), says(ticker(0)))
    events, _ = listen(exchange, frames(2), lasting_s=1e-9)
    assert [(state.is_connected, state.attempt) for state in of(FeedState, events)] == [
        (True, 1),
        (False, 1),
        (True, 1),
    ]


def test_a_connection_without_a_tick_resets_no_attempts() -> None:
    """Heartbeats and confirmations are no data: the attempts go on counting until a tick comes."""
    exchange = ScriptedExchange(says(ack(0, **FULL_ACK), then=drops), says(then=drops), says(ticker(0)))
    events, _ = listen(exchange, frames(2))
    assert [state.attempt for state in of(FeedState, events) if state.is_connected] == [1, 2, 3]


def test_connections_without_data_are_one_gap() -> None:
    """Several connections that end before their first tick make one gap."""
    exchange = ScriptedExchange(
        says(ticker(0), then=drops), says(then=drops), says(ack(0, **FULL_ACK), then=drops), says(ticker(0), ticker(1))
    )
    events, _ = listen(exchange, frames(4))
    told = of(FeedFrame, events)
    assert [(gap.cause, gap.start, gap.end) for gap in of(Gap, events)] == [
        (Cause.RECONNECT, told[0].received, told[2].received)
    ]


def test_a_refused_connection_is_retried() -> None:
    """Each failed attempt is a state with its number; there is no gap, because there was no data before."""

    async def whole() -> list[FeedEvent]:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
            return await heard(FeedSession(settings(url)), some(FeedState, 3))

    states = run(whole())
    assert len(states) == 3
    for attempt, state in enumerate(states, 1):
        assert isinstance(state, FeedState)
        assert (state.is_connected, state.attempt) == (False, attempt)
        assert state.reason.startswith("cannot connect: ")


def test_a_refused_handshake_is_retried() -> None:
    """The states of refused handshakes have the status, and the session connects once it is accepted."""
    answers = [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.FORBIDDEN]

    def process(connection: ServerConnection, _request: Request) -> Response | None:
        return connection.respond(answers.pop(0), "busy") if answers else None

    events, _ = listen(ScriptedExchange(says(ticker(0)), process_request=process), frames(1))
    states = of(FeedState, events)
    assert [state.is_connected for state in states] == [False, False, True]
    assert "503" in states[0].reason
    assert "403" in states[1].reason


def test_a_server_without_a_handshake_times_out() -> None:
    """A socket that accepts and sends nothing is a failed attempt after the connect timeout."""

    async def whole() -> list[FeedEvent]:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
            return await heard(FeedSession(settings(url, connect_timeout_s=0.05)), some(FeedState))

    (state,) = run(whole())
    assert isinstance(state, FeedState)
    assert state.reason == "cannot connect: timed out during opening handshake"


def test_silence_is_reported_and_then_the_connection_is_closed() -> None:
    """After the last frame: a gap of silence, a state with the reason, and a gap until new data."""
    exchange = ScriptedExchange(says(ticker(0)), says(ticker(0)))
    events, _ = listen(exchange, frames(2), heartbeat_timeout_s=0.1, idle_timeout_s=0.3)
    _, first, silence, state, _, absence, second = events
    assert isinstance(first, FeedFrame)
    assert isinstance(second, FeedFrame)
    assert isinstance(silence, Gap)
    assert (silence.cause, silence.start) == (Cause.SILENCE, first.received)
    assert silence.end - silence.start >= 100_000_000
    assert isinstance(state, FeedState)
    assert state.reason == "no frame for 0.3 s: the connection was closed on our side"
    assert absence == Gap(start=first.received, end=second.received, products=("BTC-USD",), cause=Cause.RECONNECT)


def test_a_silence_is_reported_to_its_end() -> None:
    """The rest of a silence comes before the frame that ends it, on the same connection."""
    go_on = asyncio.Event()

    async def wakes(connection: ServerConnection) -> None:
        await go_on.wait()
        await says(ticker(1))(connection)

    def is_enough(events: list[FeedEvent]) -> bool:
        if of(Gap, events):
            go_on.set()
        return frames(2)(events)

    events, session = listen(
        ScriptedExchange(says(ticker(0), then=wakes)), is_enough, heartbeat_timeout_s=0.05, idle_timeout_s=10.0
    )
    first, second = of(FeedFrame, events)
    one, other = of(Gap, events)
    assert (one.start, one.end, other.end) == (first.received, other.start, second.received)
    assert {one.cause, other.cause} == {Cause.SILENCE}
    assert events[-2] is other
    assert session.stats.connections == 1


def test_a_product_left_out_of_the_confirmation_is_named() -> None:
    """A confirmation without one product is one error that names the product; data goes on."""
    known = {channel: ["BTC-USD"] for channel in ("ticker", "market_trades")}
    script = says(ticker(0), ack(1, **known), ack(2, heartbeats=["heartbeats"], **known), ticker(3))
    events, session = listen(
        ScriptedExchange(script), some(FeedError), products=("BTC-USD", "NO-SUCH"), ack_timeout_s=0.1
    )
    (error,) = of(FeedError, events)
    assert error.products == ("NO-SUCH",)
    assert error.reason == "requested and not confirmed by the exchange: ticker NO-SUCH; market_trades NO-SUCH"
    assert len(of(FeedFrame, events)) == 4
    assert session.stats.errors == 1


def test_an_alias_and_an_empty_confirmation_are_no_errors() -> None:
    """BTC-USDC is confirmed by data of BTC-USD after an empty confirmation; a gap names both."""
    trade = {"product_id": "BTC-USD", "trade_id": "1", "price": "1", "size": "1", "side": "BUY"}
    trade["time"] = "2026-06-14T05:54:17Z"
    script = says(
        ack(0),
        ticker(1),
        envelope("market_trades", 2, {"type": "snapshot", "trades": [trade]}),
        envelope("heartbeats", 3, {"heartbeat_counter": 1}),
        ticker(6),
    )
    events, _ = listen(
        ScriptedExchange(script), some(Gap, 2), products=("BTC-USDC",), ack_timeout_s=0.02, heartbeat_timeout_s=0.2
    )
    assert not of(FeedError, events)
    assert of(Gap, events)[0].products == ("BTC-USD", "BTC-USDC")


def test_an_error_of_the_exchange_is_reported() -> None:
    """The frame is followed by an error with the exchange's text; the session goes on."""
    refusal = b'{"type":"error","message":"authentication failure"}'
    events, _ = listen(ScriptedExchange(says(refusal, ticker(0))), frames(2))
    _, frame, error, _ = events
    assert isinstance(frame, FeedFrame)
    assert isinstance(error, FeedError)
    assert error.reason == "error message from the exchange: authentication failure"


def test_a_malformed_frame_does_not_end_the_session() -> None:
    """Malformed bytes are faults and one gap of unknown size; a readable sequence number still counts."""
    broken = b'{"channel":"ticker","timestamp":"","sequence_num":1,"events":[{"tick'
    events, session = listen(ScriptedExchange(says(ticker(0), broken, b"\xf0", ticker(2))), frames(2))
    faults = of(FeedFault, events)
    assert [fault.data for fault in faults] == [broken, b"\xf0"]
    first, second = of(FeedFrame, events)
    (gap,) = of(Gap, events)
    assert (gap.start, gap.end, gap.cause, gap.lost) == (first.received, second.received, Cause.MALFORMED, -1)
    assert gap.detail == "2 faults, the first: Input data was truncated at $"
    assert events[-2:] == [gap, second]
    assert session.stats.malformed == 2


def test_unknown_channels_are_counted() -> None:
    """A frame of an unknown channel is counted by its name."""
    events, session = listen(ScriptedExchange(says(envelope("l3_data", 0, {}), envelope("l3_data", 1, {}))), frames(2))
    assert session.stats.ignored == {"l3_data": 2}
    assert not of(FeedFault, events)


def test_a_large_frame_arrives() -> None:
    """A book of five megabytes does not break the connection, and later frames arrive."""
    levels = [{"side": "bid", "price_level": f"{n}", "new_quantity": "1.00000000"} for n in range(80_000)]
    large = envelope("l2_data", 0, {"type": "snapshot", "updates": levels})
    assert len(large) > 5_000_000
    events, session = listen(ScriptedExchange(says(large, ticker(1))), frames(2))
    assert of(FeedFrame, events)[0].data == large
    assert session.stats.reconnects == 0


def test_a_frame_beyond_the_limit_ends_the_connection_with_a_reason() -> None:
    """A frame beyond the limit closes the connection; the state has the side and the reason."""
    script = says(ticker(0), b"x" * 5000, then=ServerConnection.wait_closed)
    events, _ = listen(ScriptedExchange(script), some(FeedState, 2), max_frame_bytes=4000)
    reason = of(FeedState, events)[1].reason
    assert reason.startswith("the connection was closed on our side: 1009 (message too big)")


async def until_received(session: FeedSession, count: int) -> None:
    while session.stats.frames < count:
        await asyncio.sleep(0.001)


def test_frames_dropped_for_a_slow_reader_are_marked_in_place() -> None:
    """The queue keeps the oldest frames; each gap counts exactly the frames dropped between kept ones."""
    sent, more, most = 2000, 8, 16

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        go_on = asyncio.Event()

        async def goes_on(connection: ServerConnection) -> None:
            await go_on.wait()
            await says(*map(ticker, range(sent, sent + more)))(connection)

        async with ScriptedExchange(says(*map(ticker, range(sent)), then=goes_on)) as exchange:
            session = FeedSession(settings(exchange.url, queue_frames=most))
            events: list[FeedEvent] = []
            async with session:
                async for event in session.events():
                    events.append(event)
                    if len(events) == 2:
                        await until_received(session, sent)
                    if len(of(FeedFrame, events)) == most:
                        go_on.set()
                    if isinstance(event, FeedFrame) and event.frame.sequence == sent + more - 1:
                        break
            return events, session

    events, session = run(whole())
    last, lost = -1, 0
    for event in events:
        if isinstance(event, Gap):
            assert event.cause is Cause.OVERFLOW
            lost = event.lost
        elif isinstance(event, FeedFrame):
            assert event.frame.sequence == last + lost + 1
            last, lost = event.frame.sequence, 0
    stats = session.stats
    assert stats.overflows == sum(gap.lost for gap in of(Gap, events))
    assert stats.overflows + len(of(FeedFrame, events)) == stats.frames == sent + more
    assert stats.overflows in {sent - most - 1, sent - most}
    assert stats.lost == 0


def test_closing_delivers_the_queue_and_ends_the_iteration() -> None:
    """After ``aclose`` queued frames are still delivered, then the iteration ends; closing twice is harmless."""

    async def whole() -> tuple[int, FeedSession]:
        async with ScriptedExchange(says(*map(ticker, range(100)))) as exchange:
            session = FeedSession(settings(exchange.url))
            count = 0
            async for event in session.events():
                if isinstance(event, FeedFrame):
                    count += 1
                if count == 1:
                    await until_received(session, 100)
                    await session.aclose()
            await session.aclose()
            return count, session

    count, session = run(whole())
    assert count == 100
    assert session.stats.queued == 0


def test_closing_while_disconnected_reports_the_open_gap() -> None:
    """A session closed before new data ends with the open gap."""

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(says(ticker(0), then=drops), says()) as exchange:
            session = FeedSession(settings(exchange.url))
            events = []
            async for event in session.events():
                events.append(event)
                if len(of(FeedState, events)) == 3:
                    await session.aclose()
            return events

    events = run(whole())
    (gap,) = of(Gap, events)
    assert events[-1] is gap
    assert gap.cause is Cause.RECONNECT


def test_cancelling_the_reader_leaves_no_task() -> None:
    """Cancelled while waiting, the session closes its socket and tasks; the server sees a normal close."""

    async def whole() -> int | None:
        codes: asyncio.Queue[int | None] = asyncio.Queue()

        async def watch(connection: ServerConnection) -> None:
            await connection.wait_closed()
            codes.put_nowait(connection.close_code)

        async with ScriptedExchange(says(ticker(0), then=watch)) as exchange:
            session = FeedSession(settings(exchange.url))
            reading = asyncio.create_task(heard(session, frames(2)))
            await until_received(session, 1)
            reading.cancel()
            await asyncio.wait({reading})
            assert reading.cancelled()
            return await codes.get()

    assert run(whole()) == 1000


def test_a_session_is_read_once() -> None:
    """A second reader is refused."""

    async def whole() -> None:
        async with ScriptedExchange(says(ticker(0))) as exchange:
            session = FeedSession(settings(exchange.url))
            await heard(session, frames(1))
            with pytest.raises(UsageError, match="once"):
                await anext(session.events())

    run(whole())


@pytest.mark.parametrize("url", ["http://127.0.0.1", "ws:/nowhere", "exchange"])
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    """A url that is not a websocket url is a usage error before any connection."""
    with pytest.raises(UsageError, match="ws://"):
        FeedSession(settings(url))


def test_the_protocols_have_their_own_urls() -> None:
    """Without a url in the settings, the url is the exchange's."""
    assert FeedSession(FeedSettings()).url == "wss://advanced-trade-ws.coinbase.com"
    assert FeedSession(FeedSettings(protocol="coinbase-exchange")).url == "wss://ws-feed.exchange.coinbase.com"


def recorded_session(folder: Path) -> list[bytes]:
    with pa.input_stream(str(folder / "advanced_trade_20260809.jsonl.zst"), compression="zstd") as stream:
        lines = map(msgspec.json.decode, stream.read().splitlines())
        return [line["data"].encode() for line in lines if line["t"] == "recv"]


def recorded_envelopes(folder: Path) -> list[bytes]:
    return (folder / "advanced_trade_envelopes_20260404.ndjson").read_bytes().splitlines()


def recorded_exchange(folder: Path) -> list[bytes]:
    """The last of the recording's sessions; hours lie between them, which no connection would carry."""
    lines = (folder / "exchange_ticker_202511.ndjson").read_bytes().splitlines()[2828:]
    return [msgspec.json.decode(line)["raw"].encode() for line in lines]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("protocol", "requests", "recording", "decode"),
    [
        ("coinbase", 3, recorded_session, decode_advanced_trade),
        ("coinbase", 3, recorded_envelopes, decode_advanced_trade),
        ("coinbase-exchange", 1, recorded_exchange, decode_exchange),
    ],
    ids=["session", "envelopes", "exchange"],
)
def test_recordings_arrive_unchanged(
    shared_data: Path,
    protocol: str,
    requests: int,
    recording: Callable[[Path], list[bytes]],
    decode: Callable[[bytes, int], Frame],
) -> None:
    """Every recorded frame arrives as the codec decodes it, and the gaps are the numbers missing in the recording."""
    sent = recording(shared_data / "protocol")
    events, _ = listen(
        ScriptedExchange(says(*sent), requests=requests),
        frames(len(sent)),
        protocol=protocol,
        products=("BTC-USD", "ETH-USD"),
    )
    told = of(FeedFrame, events)
    assert [event.data for event in told] == sent
    assert [repr(event.frame) for event in told] == [repr(decode(event.data, event.received)) for event in told]
    numbers = [event.frame.sequence for event in told if event.frame.sequence >= 0]
    missing = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    assert sum(gap.lost for gap in of(Gap, events) if gap.verifiable) == missing


def test_url_from_the_environment() -> None:
    """``COINBASE_WS_URL`` sets the url, and a flag beats it."""
    environ = {"COINBASE_WS_URL": "ws://127.0.0.1:1"}
    assert load_settings(FeedSettings, {}, environ, None, "feed").url == "ws://127.0.0.1:1"
    assert load_settings(FeedSettings, {"url": "ws://other"}, environ, None, "feed").url == "ws://other"


@pytest.mark.parametrize("wrong", [{"products": []}, {"queue_frames": 0}, {"idle_timeout_s": 0}, {"patience": 1}])
def test_invalid_settings_are_refused(wrong: dict[str, object]) -> None:
    """No products, an unknown key, a queue of size 0: each is a usage error."""
    with pytest.raises(UsageError):
        load_settings(FeedSettings, wrong, {}, None, "feed")


def test_an_unknown_protocol_is_refused() -> None:
    """The error lists the protocols that exist."""
    with pytest.raises(UsageError, match="there are coinbase, coinbase-exchange, binance"):
        FeedSession(FeedSettings(protocol="nyse"))


def test_settings_round_trip() -> None:
    """Settings written as JSON read back the same."""
    settings = FeedSettings(products=("BTC-USD", "ETH-USD"))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=FeedSettings) == settings
