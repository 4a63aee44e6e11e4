"""A session against a real websocket server on this machine that says what its script says."""

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
from volspike.config import FeedSettings, settle
from volspike.errors import UsageError
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, Frame
from volspike.feeds.session import FeedSession
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import Cause, Gap


def test_advanced_trade_is_asked_channel_by_channel() -> None:
    """One message for each channel, products in all but the heartbeats'; compression is agreed on."""
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
def test_exchange_is_asked_in_one_message(*, matches: bool) -> None:
    """One message with all channels, matches only where they are asked for; compression can be left out."""
    frame = b'{"type":"heartbeat","product_id":"BTC-USD","time":"2026-01-01T00:00:00Z","last_trade_id":1}'
    exchange = ScriptedExchange(says(frame), requests=1)
    listen(exchange, frames(1), protocol="coinbase-exchange", matches=matches, compression=False)
    channels = ["ticker", "heartbeat", *(["matches"] if matches else [])]
    assert exchange.asked == [[{"type": "subscribe", "product_ids": ["BTC-USD"], "channels": channels}]]
    assert exchange.extensions == [""]


def test_frames_come_in_order_with_bytes_and_meaning() -> None:
    """First the state, then each frame as it was sent, when it came, and what the codec makes of it; figures agree."""
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


def test_a_jump_is_a_gap_of_all_products_before_the_frame_that_shows_it() -> None:
    """Numbers 0, 1, 5 tell that three messages were lost, between the two frames; a repeat tells nothing."""
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
def test_a_lost_connection_is_made_again(end: Script, reason: str) -> None:
    """The state tells why; it subscribes anew, and the gap reaches from the last frame to the first tick after."""
    exchange = ScriptedExchange(says(ticker(0), ticker(1), then=end), says(ack(0, **FULL_ACK), ticker(1), ticker(2)))
    events, session = listen(exchange, frames(5))
    told = of(FeedFrame, events)
    states = of(FeedState, events)
    assert [(state.is_connected, state.attempt) for state in states] == [(True, 1), (False, 1), (True, 2)]
    assert states[1].reason.startswith(reason)
    gaps = of(Gap, events)
    assert gaps == [
        Gap(start=told[1].received, end=told[3].received, products=("BTC-USD",), cause=Cause.RECONNECT),
    ]
    assert events[events.index(gaps[0]) + 1] is told[3]
    assert exchange.asked[0] == exchange.asked[1]
    assert (session.stats.connections, session.stats.reconnects) == (2, 1)


def test_a_connection_that_lasted_begins_the_count_anew() -> None:
    """Its end is still told with its own number; the next attempt is the first again."""
    exchange = ScriptedExchange(says(ticker(0), then=drops), says(ticker(0)))
    events, _ = listen(exchange, frames(2), lasting_s=1e-9)
    assert [(state.is_connected, state.attempt) for state in of(FeedState, events)] == [
        (True, 1),
        (False, 1),
        (True, 1),
    ]


def test_connections_without_data_are_one_absence() -> None:
    """Several connections that end before their first tick make one gap, not one each."""
    exchange = ScriptedExchange(
        says(ticker(0), then=drops), says(then=drops), says(ack(0, **FULL_ACK), then=drops), says(ticker(0), ticker(1))
    )
    events, _ = listen(exchange, frames(4))
    told = of(FeedFrame, events)
    assert [(gap.cause, gap.start, gap.end) for gap in of(Gap, events)] == [
        (Cause.RECONNECT, told[0].received, told[2].received)
    ]


def test_a_refused_connection_is_tried_again() -> None:
    """Where nobody listens, each attempt is told with its number, and no gap, since nothing was before."""

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


def test_a_handshake_that_is_turned_away_is_tried_again() -> None:
    """A server that answers 503 is told as such, and the session connects once it answers well."""
    answers = [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.FORBIDDEN]

    def process(connection: ServerConnection, _request: Request) -> Response | None:
        return connection.respond(answers.pop(0), "busy") if answers else None

    events, _ = listen(ScriptedExchange(says(ticker(0)), process_request=process), frames(1))
    states = of(FeedState, events)
    assert [state.is_connected for state in states] == [False, False, True]
    assert "503" in states[0].reason
    assert "403" in states[1].reason


def test_a_server_that_never_shakes_hands_is_given_up() -> None:
    """A socket that accepts and says nothing ends in a state after the connect timeout."""

    async def whole() -> list[FeedEvent]:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
            return await heard(FeedSession(settings(url, connect_timeout_s=0.05)), some(FeedState))

    (state,) = run(whole())
    assert isinstance(state, FeedState)
    assert state.reason == "cannot connect: timed out during opening handshake"


def test_silence_is_told_while_it_lasts_and_then_the_connection_is_given_up() -> None:
    """After the last frame: a gap of silence, a state that says so, and a gap until data comes anew."""
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


def test_a_silence_that_ends_is_told_to_its_end() -> None:
    """The rest of a silence comes before the frame that ends it, without a hole, on the same connection."""
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


def test_a_product_that_the_ack_leaves_out_is_named() -> None:
    """An ack after the first data and without one product is an error that names it, once; data goes on."""
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


def test_an_alias_and_an_empty_ack_are_no_errors() -> None:
    """BTC-USDC whose data comes as BTC-USD is granted, though the ack is empty; a gap names both."""
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


def test_an_error_of_the_exchange_is_told() -> None:
    """The frame comes, and an error that says what the exchange said; the session goes on."""
    refusal = b'{"type":"error","message":"authentication failure"}'
    events, _ = listen(ScriptedExchange(says(refusal, ticker(0))), frames(2))
    _, frame, error, _ = events
    assert isinstance(frame, FeedFrame)
    assert isinstance(error, FeedError)
    assert error.reason == "error message from the exchange: authentication failure"


def test_a_malformed_frame_is_a_fault_and_not_an_end() -> None:
    """Bytes that are no frame come as a fault with where it is; a number that can be read still counts."""
    broken = b'{"channel":"ticker","timestamp":"","sequence_num":1,"events":[{"tick'
    events, session = listen(ScriptedExchange(says(ticker(0), broken, b"\xf0", ticker(2))), frames(2))
    faults = of(FeedFault, events)
    assert [fault.data for fault in faults] == [broken, b"\xf0"]
    assert not of(Gap, events)
    assert session.stats.malformed == 2


def test_unknown_channels_are_counted() -> None:
    """A channel that is not known comes as a frame, counted by its name."""
    events, session = listen(ScriptedExchange(says(envelope("l3_data", 0, {}), envelope("l3_data", 1, {}))), frames(2))
    assert session.stats.ignored == {"l3_data": 2}
    assert not of(FeedFault, events)


def test_a_large_frame_comes_through() -> None:
    """A book of five megabytes is no reason to lose the connection, and what comes behind it is there."""
    levels = [{"side": "bid", "price_level": f"{n}", "new_quantity": "1.00000000"} for n in range(80_000)]
    large = envelope("l2_data", 0, {"type": "snapshot", "updates": levels})
    assert len(large) > 5_000_000
    events, session = listen(ScriptedExchange(says(large, ticker(1))), frames(2))
    assert of(FeedFrame, events)[0].data == large
    assert session.stats.reconnects == 0


def test_a_frame_beyond_the_limit_ends_the_connection_with_a_reason() -> None:
    """What is larger than it may be is not taken; the state says who closed and why."""
    script = says(ticker(0), b"x" * 5000, then=ServerConnection.wait_closed)
    events, _ = listen(ScriptedExchange(script), some(FeedState, 2), max_frame_bytes=4000)
    reason = of(FeedState, events)[1].reason
    assert reason.startswith("the connection was closed on our side: 1009 (message too big)")


async def until_received(session: FeedSession, count: int) -> None:
    while session.stats.frames < count:
        await asyncio.sleep(0.001)


def test_what_a_slow_reader_misses_is_marked_in_its_place() -> None:
    """The queue keeps the oldest; each gap stands between kept frames and counts exactly what lies between them."""
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


def test_closing_delivers_what_is_queued_and_ends_the_iteration() -> None:
    """After ``aclose`` the frames that had come are still told, then the iteration ends; closing again is nothing."""

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


def test_closing_while_connected_to_nobody_tells_the_open_absence() -> None:
    """A session closed before data came back tells the gap up to then."""

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


def test_cancelling_the_reader_leaves_nothing() -> None:
    """Cancelled while it waits, the session closes its socket and its tasks; the server sees a normal end."""

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
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """What is no websocket's url is a usage error before anything is tried."""
    with pytest.raises(UsageError, match="ws://"):
        FeedSession(settings(url))


def test_the_protocols_have_their_own_urls() -> None:
    """Without a url it is the exchange's."""
    assert FeedSession(FeedSettings()).url == "wss://advanced-trade-ws.coinbase.com"
    assert FeedSession(FeedSettings(protocol="coinbase-exchange")).url == "wss://ws-feed.exchange.coinbase.com"


def recorded_session(folder: Path) -> list[bytes]:
    with pa.input_stream(str(folder / "advanced_trade_20260809.jsonl.zst"), compression="zstd") as stream:
        lines = map(msgspec.json.decode, stream.read().splitlines())
        return [line["data"].encode() for line in lines if line["t"] == "recv"]


def recorded_envelopes(folder: Path) -> list[bytes]:
    return (folder / "advanced_trade_envelopes_20260404.ndjson").read_bytes().splitlines()


def recorded_exchange(folder: Path) -> list[bytes]:
    lines = (folder / "exchange_ticker_202511.ndjson").read_bytes().splitlines()
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
def test_recordings_come_through_unchanged(
    shared_data: Path,
    protocol: str,
    requests: int,
    recording: Callable[[Path], list[bytes]],
    decode: Callable[[bytes, int], Frame],
) -> None:
    """Every recorded frame arrives as the codec reads it, and the gaps are the numbers that the recording lacks."""
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
    assert sum(gap.lost for gap in of(Gap, events)) == missing


def test_url_from_the_environment() -> None:
    """``COINBASE_WS_URL`` sets the url, and a flag beats it."""
    environ = {"COINBASE_WS_URL": "ws://127.0.0.1:1"}
    assert settle(FeedSettings, {}, environ, None, "feed").url == "ws://127.0.0.1:1"
    assert settle(FeedSettings, {"url": "ws://other"}, environ, None, "feed").url == "ws://other"


@pytest.mark.parametrize(
    "wrong", [{"products": []}, {"protocol": "kraken"}, {"queue_frames": 0}, {"idle_timeout_s": 0}, {"patience": 1}]
)
def test_invalid_settings_are_refused(wrong: dict[str, object]) -> None:
    """No products, an unknown protocol or key, a queue of size 0: each is a usage error."""
    with pytest.raises(UsageError):
        settle(FeedSettings, wrong, {}, None, "feed")


def test_settings_round_trip() -> None:
    """Settings written as JSON read back the same."""
    settings = FeedSettings(products=("BTC-USD", "ETH-USD"))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=FeedSettings) == settings
