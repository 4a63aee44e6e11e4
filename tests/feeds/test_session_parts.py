"""The parts of a session that need no socket: counts, waits, grants, silences and the queue."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.config import FeedSettings, settle
from volspike.errors import UsageError
from volspike.feeds.connection import Backoff, Pace, parse_address, proxy_for
from volspike.feeds.events import FeedState, Frame, Heartbeat, Subscriptions
from volspike.feeds.inbox import Arrival, Inbox, Overflow, SequenceCheck, SilenceDetector
from volspike.feeds.protocol import SubscriptionCheck, advanced_trade_sequence, data_names
from volspike.feeds.session import IdleTimer
from volspike.market import Cause, Gap, Kind, Tick

SILENCE, IDLE = 10, 30


def told_missing(numbers: list[int]) -> list[int]:
    check = SequenceCheck()
    return [number for current in numbers for number in check.missing(current)]


@given(st.sets(st.integers(0, 200), min_size=1), st.data())
def test_losses_are_exactly_the_missing_numbers(numbers: set[int], data: st.DataObject) -> None:
    """Whichever numbers are left out and however often others repeat, those left out are told, each once."""
    came = [number for number in sorted(numbers) for _ in range(data.draw(st.integers(1, 3)))]
    assert told_missing(came) == sorted(set(range(min(numbers), max(numbers))) - numbers)


@given(st.lists(st.integers(0, 100)))
def test_no_order_of_arrival_hides_a_loss(numbers: list[int]) -> None:
    """In any order, what is told is in order and each once, holds all that never came, and the rest came late."""
    check = SequenceCheck()
    told = [number for current in numbers for number in check.missing(current)]
    assert all(one < other for one, other in pairwise(told))
    if numbers:
        assert set(range(numbers[0], max(numbers))) - set(numbers) <= set(told)
        assert check.repeated == len(numbers) - (max(numbers) - numbers[0] - len(told)) - 1


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        (b'{"channel":"ticker","timestamp":"t","sequence_num":16,"events":[]}', 16),
        (b'{"channel": "ticker", "sequence_num": "0", "events": []}', 0),
        (b'{"channel":"ticker","sequence_num":7,"events":[{"type":"upd', 7),
        (b'{"channel":"l2_data","pad":"' + b"x" * 207 + b'","sequence_num":123456,"events":[]}', 123456),
        (b'{"channel":"l2_data","events":"' + b"x" * 999 + b'","sequence_num":5}', 5),
        (b'{"type":"error","message":"say \\"sequence_num\\":9,"}', -1),
        (b'{"type":"error","message":"authentication failure"}', -1),
        (b'{"channel":"ticker","sequence_num":-4}', -1),
        (b'{"chan', -1),
        (b"\xff\xfe", -1),
        (b"[" * 100_000, -1),
        (b"", -1),
    ],
)
def test_sequence_number_of_a_frame(frame: bytes, number: int) -> None:
    """It is found in the head, across its edge and behind the body, and is -1 where none can be read."""
    assert advanced_trade_sequence(frame) == number


def test_backoff_doubles_up_to_its_most() -> None:
    """The ceiling of the wait goes from 250 ms to 30 s by doubling, and a reset brings it back."""
    backoff = Backoff(0.25, 30.0, lambda: 1.0)
    assert [backoff.delay_s() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.delay_s() == 0.25


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=20))
def test_backoff_stays_within_its_ceiling(draws: list[float]) -> None:
    """Whatever is drawn, a wait lies between 0 and the ceiling of its attempt."""
    left = iter(draws)
    backoff = Backoff(0.25, 30.0, lambda: next(left))
    for attempt in range(len(draws)):
        assert 0 <= backoff.delay_s() <= min(30.0, 0.25 * 2**attempt)


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 8))
def test_no_second_holds_more_than_its_share(steps: list[float], limit: int) -> None:
    """However requests come, any two that are ``limit`` apart stand a second apart or more."""
    pace, now, turns = Pace(limit), 0.0, []
    for step in steps:
        now += step / 10
        turns.append(now + pace.delay_s(now))
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in zip(turns, turns[limit:], strict=False))


def test_a_rare_request_does_not_wait() -> None:
    """Nothing waits until a second is full."""
    pace = Pace(3)
    assert [pace.delay_s(now) for now in (0.0, 0.1, 0.2, 0.5, 2.0)] == [0, 0, 0, 0.5, 0]


def acked(**channels: tuple[str, ...]) -> Frame:
    return Frame(time=0, ack=Subscriptions(channels=channels))


def subscription() -> SubscriptionCheck:
    both = {"BTC-USD", "ETH-USD"}
    return SubscriptionCheck({"ticker": both, "market_trades": both, "heartbeats": set()})


def test_what_the_ack_leaves_out_is_missing() -> None:
    """A product left out of one channel is named there; a channel without products stands for itself."""
    asked = subscription()
    asked.update(acked(ticker=("BTC-USD", "ETH-USD"), market_trades=("ETH-USD",)))
    assert asked.missing() == {"market_trades": ("BTC-USD",), "heartbeats": ()}


def test_acks_add_up() -> None:
    """One ack per channel, in any order and with more than was asked, grants all."""
    asked = subscription()
    asked.update(acked(heartbeats=("heartbeats",), candles=("BTC-USD",)))
    asked.update(acked(ticker=("SOL-USD", "ETH-USD", "BTC-USD")))
    assert not asked.is_confirmed
    asked.update(acked(market_trades=("BTC-USD", "ETH-USD")))
    assert asked.is_confirmed


def test_data_grants_where_the_ack_is_empty() -> None:
    """After an empty ack, a tick of a product on a channel shows that it is sent, and a heartbeat its channel."""
    asked = SubscriptionCheck({"ticker": {"BTC-USD"}, "heartbeats": set()})
    asked.update(acked())
    assert asked.missing() == {"ticker": ("BTC-USD",), "heartbeats": ()}
    tick = Tick(time=0, received=0, kind=Kind.TICKER, product_id="BTC-USD", price=1.0)
    asked.update(Frame(time=0, ticks=(tick,)))
    asked.update(Frame(time=0, heartbeats=(Heartbeat(time=0, counter=1),)))
    assert asked.is_confirmed


def test_heartbeats_of_products() -> None:
    """Exchange's heartbeats tell their products, so each grants its own."""
    asked = SubscriptionCheck({"heartbeat": {"BTC-USD", "ETH-USD"}})
    asked.update(Frame(time=0, heartbeats=(Heartbeat(time=0, product_id="BTC-USD"),)))
    assert asked.missing() == {"heartbeat": ("ETH-USD",)}


def test_an_alias_grants_its_product() -> None:
    """BTC-USDC is granted as BTC-USD, and a gap names both; ETH-BTC has no other name."""
    asked = SubscriptionCheck({"ticker": {"BTC-USDC"}})
    asked.update(acked(ticker=("BTC-USD",)))
    assert asked.is_confirmed
    assert data_names(["BTC-USDC", "ETH-BTC", "BTC-USD"]) == ("BTC-USD", "BTC-USDC", "ETH-BTC")


@given(st.lists(st.integers(0, 25), max_size=40))
def test_silences_are_told_without_holes_or_overlap(steps: list[int]) -> None:
    """Looked at every nanosecond, what is told are exactly the pauses that lasted long enough, from frame to frame."""
    watch, now = SilenceDetector(SILENCE, IDLE, 0), 0
    told: list[tuple[int, int]] = []
    pauses: list[tuple[int, int]] = []
    last: int | None = None
    for pause in steps:
        for _ in range(pause):
            now += 1
            told += filter(None, [watch.detect(now)])
        told += filter(None, [watch.end(now)])
        if last is not None and now - last >= SILENCE:
            pauses.append((last, now))
        last = now
    covered = [moment for start, end in told for moment in range(start, end)]
    assert covered == [moment for start, end in pauses for moment in range(start, end)]


def test_silence_is_told_once_it_is_long_enough_and_again_when_it_ends() -> None:
    """The first piece comes while it lasts, the rest with the frame that ends it; idleness is later than silence."""
    watch = SilenceDetector(SILENCE, IDLE, 100)
    watch.end(105)
    assert watch.detect(114) is None
    assert watch.detect(116) == (105, 116)
    assert watch.detect(120) is None
    assert not watch.is_idle(134)
    assert watch.is_idle(135)
    assert watch.end(140) == (116, 140)
    assert watch.end(141) is None


def test_a_connection_that_never_spoke_is_idle_and_not_silent() -> None:
    """Without a first frame there is no silence to tell, but the connection is given up."""
    watch = SilenceDetector(SILENCE, IDLE, 100)
    assert watch.detect(125) is None
    assert watch.is_idle(130)


def taken(inbox: Inbox) -> list[object]:
    return list(iter(inbox.take, None))


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 6))
def test_the_inbox_marks_exactly_what_it_let_go(puts: list[bool], most: int) -> None:
    """However filling and taking alternate, frames and marks together tell every number once and in order."""
    inbox, number = Inbox(most, 1 << 20), 0
    out: list[object] = []
    for is_put in puts:
        if is_put:
            inbox.put(Arrival(number, b"frame"))
            number += 1
        else:
            out += filter(None, [inbox.take()])
        assert inbox.frames <= most
    expected = 0
    for entry in out + taken(inbox):
        if isinstance(entry, Overflow):
            assert entry.lost > 0
            assert entry.start == expected - 1
            assert entry.end in {expected + entry.lost, expected + entry.lost - 1}
            expected += entry.lost
        else:
            assert isinstance(entry, Arrival)
            assert entry.received == expected
            expected += 1
    assert expected == number


def test_the_inbox_is_bounded_in_bytes() -> None:
    """A frame beyond the bytes it may hold is let go, but one frame is always held, whatever its size."""
    inbox = Inbox(100, 10)
    for received in range(3):
        inbox.put(Arrival(received, b"eleven bytes"))
    assert inbox.frames == 1
    assert inbox.dropped == 2


def test_gaps_within_an_overflow_are_added_to_its_mark() -> None:
    """While frames are let go, missing numbers make the mark grow and not the queue; it tells both."""
    inbox = Inbox(1, 1 << 20)
    inbox.put(Arrival(1, b""))
    inbox.put(Arrival(2, b""))
    for received in range(3, 1000):
        inbox.note(Gap(start=received - 1, end=received, products=(), cause=Cause.SEQUENCE, lost=2))
        inbox.put(Arrival(received, b""))
    kept, mark = taken(inbox)
    assert isinstance(kept, Arrival)
    assert isinstance(mark, Overflow)
    overflow, sequence = mark.gaps(("BTC-USD",))
    assert (overflow.cause, overflow.lost, overflow.start, overflow.end) == (Cause.OVERFLOW, 998, 1, 999)
    assert (sequence.cause, sequence.lost) == (Cause.SEQUENCE, 2 * 997)


def test_a_notice_stands_where_it_came() -> None:
    """A state that comes while frames are let go ends the mark; what is let go after it is marked behind it."""
    inbox = Inbox(1, 1 << 20)
    for received in (1, 2):
        inbox.put(Arrival(received, b""))
    inbox.note(FeedState(received=3, is_connected=False, reason="", url="", attempt=1))
    inbox.put(Arrival(4, b""))
    kept, first, _, second = taken(inbox)
    assert isinstance(kept, Arrival)
    assert first == Overflow(1, 2, 1)
    assert second == Overflow(2, 4, 1)


def test_the_url_can_come_from_the_environment() -> None:
    """``COINBASE_WS_URL`` sets the url, and a flag beats it."""
    environ = {"COINBASE_WS_URL": "ws://127.0.0.1:1"}
    assert settle(FeedSettings, {}, environ, None, "feed").url == "ws://127.0.0.1:1"
    assert settle(FeedSettings, {"url": "ws://other"}, environ, None, "feed").url == "ws://other"


@pytest.mark.parametrize(
    "wrong", [{"products": []}, {"protocol": "kraken"}, {"queue_frames": 0}, {"idle_timeout_s": 0}, {"patience": 1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """No products, an unknown protocol or key, a queue of nothing: each is a usage error."""
    with pytest.raises(UsageError):
        settle(FeedSettings, wrong, {}, None, "feed")


def test_a_busy_event_loop_is_no_silence() -> None:
    """After the loop was held up, what waits in it is served before the next look; then looks go on."""

    async def whole() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        looked = asyncio.Event()

        def look() -> bool:
            order.append("look")
            looked.set()
            return False

        async with asyncio.timeout(10) as limit:
            with IdleTimer(look, limit, 0.01):
                loop.call_soon(lambda: loop.call_soon(order.append, "frame"))
                until = loop.time() + 0.05
                while loop.time() < until:
                    pass
                await looked.wait()
        return order

    assert asyncio.run(whole())[:2] == ["frame", "look"]


def test_a_look_that_says_so_ends_the_context() -> None:
    """The limit around it runs out at once."""

    async def whole() -> None:
        async with asyncio.timeout(None) as limit:
            with IdleTimer(lambda: True, limit, 0.001):
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(whole())


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("ws://127.0.0.1:8000/coinbase", None),
        ("ws://localhost:8000", None),
        ("ws://[::1]:8000", None),
        ("ws://10.0.0.1:8000", True),
        ("wss://advanced-trade-ws.coinbase.com", True),
    ],
)
def test_no_proxy_stands_before_this_machine(url: str, proxy: object) -> None:
    """The system's proxy is used for every host but this one."""
    assert proxy_for(parse_address(url)) is proxy


def test_settings_round_trip() -> None:
    """Settings written as JSON read back the same."""
    settings = FeedSettings(products=("BTC-USD", "ETH-USD"))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=FeedSettings) == settings
