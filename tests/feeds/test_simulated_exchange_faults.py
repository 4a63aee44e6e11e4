"""Each fault of the simulated exchange has its effect and is recorded."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from volspike.errors import MalformedTick, UsageError
from volspike.feeds.simulation.coinbase_server import ExchangeServer
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import DAMAGES, KEPT_BYTES, Fault, Faults, Injector, Record
from volspike.feeds.simulation.protocols import Handshake, Outgoing
from volspike.feeds.venues import decode_any
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.market import SECOND_NS, parse_time

START = parse_time("2026-01-05T00:00:00Z")
TICKER = json.dumps({"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "ticker"})
EXCHANGE_TICKER = json.dumps({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["ticker", "heartbeat"]})


def settings(**changes: Any) -> SimulatedExchangeSettings:
    plain: dict[str, Any] = {"products": ("BTC-USD",), "speed": 0.0, "start": START, "seconds": 60}
    return SimulatedExchangeSettings(**(plain | changes))


async def rest(client: ClientConnection) -> list[bytes]:
    frames = []
    try:
        async with asyncio.timeout(20):
            while True:
                frames.append(await client.recv(decode=False))
    except ConnectionClosed:
        return frames


Heard = tuple[list[bytes], SimulatedExchange, ClientConnection]


def heard(
    faults: Faults | None = None,
    strike: Callable[[SimulatedExchange], object] = lambda _: None,
    protocol: str = "coinbase",
    **changes: Any,
) -> Heard:
    """The frames that a client of the ticker receives; ``strike`` is called after connecting, before subscribing."""

    async def run() -> Heard:
        async with SimulatedExchange(settings(faults=faults or Faults(), **changes)) as exchange:
            async with connect(exchange.url(protocol), max_size=None) as client:
                strike(exchange)
                await client.send(TICKER if protocol == "coinbase" else EXCHANGE_TICKER)
                frames = await rest(client)
            return frames, exchange, client

    return asyncio.run(run())


def numbers(frames: list[bytes]) -> list[int]:
    return [json.loads(frame)["sequence_num"] for frame in frames]


def faults_of(exchange: SimulatedExchange) -> list[Fault]:
    """All faults except the close at the end of the market."""
    return [each.fault for each in exchange.injected][:-1]


def on_the_wire(exchange: SimulatedExchange) -> list[bytes]:
    return [sent.data for sent in exchange.sent if not sent.is_lost]


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_random_faults_are_recorded_frame_by_frame(protocol: str) -> None:
    """With all faults at once, the client receives exactly the frames recorded as sent, in order."""
    faults = Faults(
        drop=0.05, delay=0.05, delay_s=0.001, duplicate=0.05, reorder=0.05, skip=0.02, malformed=0.05, unknown=0.05,
        damage=0.05, mistime=0.05, silence_every_s=11, silence_s=2, snapshot_every_s=13, snapshot_bytes=10_000,
    )  # fmt: skip
    frames, exchange, _ = heard(faults, protocol=protocol)
    assert frames == on_the_wire(exchange)
    assert exchange.record.frames == len(frames)
    assert exchange.record.lost == sum(sent.is_lost for sent in exchange.sent) > 10
    assert set(faults_of(exchange)) == set(Fault) - {
        Fault.CLOSE,
        Fault.SLOW_READER,
        Fault.UNSENT,
        Fault.RESET,
        Fault.LIFETIME,
        Fault.SHUTDOWN,
        Fault.RULE,
    }


def test_dropped_numbers_are_the_client_s_gaps() -> None:
    """A dropped frame keeps its number: the numbers missing at the client are those recorded as lost."""
    frames, exchange, _ = heard(Faults(drop=0.1))
    heard_numbers = numbers(frames)
    lost = {sent.sequence for sent in exchange.sent if sent.is_lost}
    assert len(lost) > 20
    assert lost == set(range(max(heard_numbers) + 1)) - set(heard_numbers) | {n for n in lost if n > max(heard_numbers)}
    assert [each.sequence for each in exchange.injected if each.fault is Fault.DROP] == sorted(lost)


def test_skipped_numbers_lose_nothing() -> None:
    """Skipped numbers make a jump without a lost frame."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.skip(5))
    assert numbers(frames) == list(range(5, 5 + len(frames)))
    assert exchange.record.lost == 0
    assert faults_of(exchange) == [Fault.SKIP]


def test_skipping_on_exchange_shifts_the_products_numbers() -> None:
    """All later sequence numbers rise by the numbers skipped, and the trades are the same."""
    plain, skipped = (
        [json.loads(frame) for frame in heard(strike=strike, protocol="coinbase-exchange")[0][1:]]
        for strike in (lambda _: 0, lambda exchange: exchange.faults.skip(7))
    )
    assert [frame["sequence"] + 7 for frame in plain] == [frame["sequence"] for frame in skipped]


def test_a_duplicate_comes_twice_with_its_number() -> None:
    """The same bytes are sent once more, immediately after."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.duplicate(2))
    assert numbers(frames)[:5] == [0, 0, 1, 1, 2]
    assert frames[0] == frames[1]
    assert faults_of(exchange) == [Fault.DUPLICATE] * 2


def test_reordered_frames_change_places() -> None:
    """A frame arrives after its successor; nothing is lost."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.reorder())
    assert numbers(frames)[:4] == [1, 0, 2, 3]
    assert [sent.sequence for sent in exchange.sent][:2] == [1, 0]
    assert exchange.sent[1].fault is Fault.REORDER


def test_a_delay_holds_everything_back() -> None:
    """A delayed frame arrives after the delay and in its place."""

    async def run() -> float:
        async with SimulatedExchange(settings()) as exchange, connect(exchange.url()) as client:
            exchange.faults.delay(0.2)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await client.send(TICKER)
            assert numbers([await client.recv(decode=False)]) == [0]
            waited = loop.time() - began
            await rest(client)
            return waited

    assert 0.19 < asyncio.run(run()) < 1.0


def test_silence_loses_its_frames() -> None:
    """For some simulated seconds no frame arrives, then the numbers continue after those of the lost frames."""
    frames, exchange, _ = heard(Faults(silence_every_s=20, silence_s=10))
    lost = [sent for sent in exchange.sent if sent.fault is Fault.SILENCE]
    assert numbers(frames) == [sent.sequence for sent in exchange.sent if sent.fault is None]
    assert all(20 <= (sent.time - START) / 1e9 % 20 + 20 < 30.01 for sent in lost)
    assert len({(sent.time - START) // (20 * 10**9) for sent in lost}) == 2
    assert faults_of(exchange)[:2] == [Fault.SILENCE] * 2


@pytest.mark.parametrize(("code", "seen"), [(1001, 1001), (1012, 1012), (4000, 4000), (0, 1006)])
def test_a_connection_is_closed_with_each_code(code: int, seen: int) -> None:
    """After the given simulated seconds the client sees the code, or 1006 without a close frame."""
    frames, exchange, client = heard(Faults(close_every_s=5, close_codes=(code,)))
    assert client.close_code == seen
    assert numbers(frames) == list(range(len(frames)))
    assert frames == on_the_wire(exchange)
    assert [each.fault for each in exchange.injected] == [Fault.CLOSE]
    assert 5.0 <= (exchange.injected[0].time - START) / 1e9 <= 5.25


def test_a_connection_is_closed_on_demand_and_reconnected() -> None:
    """At speed 0 the market pauses meanwhile: the new connection starts its numbers again, and times go on."""

    async def run() -> None:
        async with SimulatedExchange(settings()) as exchange:
            times = []
            for _ in range(2):
                async with connect(exchange.url()) as client:
                    await client.send(TICKER)
                    first = await client.recv(decode=False)
                    assert numbers([first]) == [0]
                    assert exchange.faults.close(1013, "try again later") == 1
                    frames = await rest(client)
                    times += [decode_advanced_trade(frame, 0).time for frame in (first, *frames)]
                    assert (client.close_code, client.close_reason) == (1013, "try again later")
            assert exchange.faults.close() == 0
            assert times == sorted(times)
            assert [each.connection for each in exchange.injected] == [1, 2]

    asyncio.run(run())


def test_malformed_frames_are_additional() -> None:
    """Malformed frames are additional: all numbered frames arrive as well."""
    frames, exchange, _ = heard(Faults(malformed=0.2))
    good, bad = [], 0
    for frame in frames:
        try:
            good.append(decode_any(frame, 0).sequence)
        except MalformedTick:
            bad += 1
    assert good == list(range(len(good)))
    assert bad == Counter(faults_of(exchange))[Fault.MALFORMED] > 10


def test_bytes_on_demand() -> None:
    """A test can send any bytes."""
    frames, _, _ = heard(strike=lambda exchange: exchange.faults.malformed(b"\x00 what"))
    assert frames[0] == b"\x00 what"


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_unknown_messages_are_ignored_by_name(protocol: str) -> None:
    """They decode to an unknown name; on Advanced Trade they are numbered like other messages."""
    frames, exchange, _ = heard(Faults(unknown=0.2), protocol=protocol)
    decoded = [decode_any(frame, 0) for frame in frames]
    unknown = [frame for frame in decoded if frame.ignored == "weather"]
    assert len(unknown) == Counter(faults_of(exchange))[Fault.UNKNOWN] > 10
    if protocol == "coinbase":
        assert [frame.sequence for frame in decoded] == list(range(len(frames)))


@pytest.mark.parametrize(("protocol", "name"), [("coinbase", "l2_data"), ("coinbase-exchange", "snapshot")])
def test_a_snapshot_of_five_megabytes(protocol: str, name: str) -> None:
    """It arrives complete, is valid JSON, and is larger than a websocket client's usual limit."""
    frames, exchange, _ = heard(
        strike=lambda exchange: exchange.faults.snapshot("BTC-USD"), protocol=protocol, seconds=1
    )
    assert 5_000_000 <= len(frames[0]) < 6_500_000
    assert decode_any(frames[0], 0).ignored == name
    json.loads(frames[0])
    assert frames[0].startswith(exchange.sent[0].data)
    assert len(exchange.sent[0].data) == 65_536


def test_automatic_faults_can_be_changed() -> None:
    """New automatic faults apply from the next frame; impossible rates are refused."""

    def all_lost(exchange: SimulatedExchange) -> None:
        exchange.faults.automatic = Faults(drop=1.0)
        with pytest.raises(UsageError):
            exchange.faults.automatic = Faults(drop=0.6, skip=0.6)

    frames, exchange, _ = heard(strike=all_lost)
    assert frames == []
    assert exchange.record.lost == len(exchange.sent) > 100


def test_a_fault_on_one_connection() -> None:
    """A fault on one connection does not affect the frames of others."""

    async def run() -> None:
        async with SimulatedExchange(settings()) as exchange:
            async with connect(exchange.url()) as one, connect(exchange.url()) as two:
                assert exchange.faults.drop(1, connection=2) == 1
                await one.send(TICKER)
                await two.send(TICKER)
                first, second = await asyncio.gather(rest(one), rest(two))
            assert numbers(first) == list(range(len(first)))
            assert numbers(second) == list(range(1, len(second) + 1))

    asyncio.run(run())


def test_the_record_keeps_the_newest_and_counts_all() -> None:
    """The record keeps the newest frames and does not grow."""
    record = Record(kept=2)
    for number in range(5):
        record.frame(1, 0, Outgoing(number, b"x"), Fault.DROP if number == 4 else None)
        record.fault(1, 0, Fault.SKIP, number)
    assert [sent.sequence for sent in record.sent] == [each.sequence for each in record.injected] == [3, 4]
    assert (record.frames, record.lost, record.faults[Fault.SKIP]) == (4, 1, 5)


def injector(faults: Faults) -> Injector:
    return Injector(1, ExchangeServer(Handshake(1, "", START, {})), Record(100), lambda: faults, 7, START)


@pytest.mark.parametrize(("after_ns", "is_lost"), [(2 * SECOND_NS - 1, True), (2 * SECOND_NS, False)])
def test_silence_at_its_end(after_ns: int, is_lost: bool) -> None:
    """A frame exactly at the end of a silence is sent."""
    silent = injector(Faults())
    silent.silence(2.0, START)
    assert silent.pass_frame(Outgoing(0, b"frame"), START + after_ns) == ([] if is_lost else [b"frame"])


@pytest.mark.parametrize(("after_ns", "is_due"), [(5 * SECOND_NS - 1, False), (5 * SECOND_NS, True)])
def test_periodic_fault_at_its_time(after_ns: int, is_due: bool) -> None:
    """A periodic fault occurs from exactly its interval after connecting, and then starts its interval again."""
    periodic = injector(Faults(silence_every_s=5.0, silence_s=1.0))
    now = START + after_ns
    periodic.periodic("BTC-USD", now)
    assert bool(periodic.pass_frame(Outgoing(0, b"frame"), now)) is not is_due
    later = now + SECOND_NS
    periodic.periodic("BTC-USD", later)
    assert bool(periodic.pass_frame(Outgoing(1, b"frame"), later)) is is_due


@pytest.mark.parametrize(("rate", "is_valid"), [(0.5, True), (0.5000001, False)])
def test_rates_that_add_up_to_one(rate: float, is_valid: bool) -> None:
    """Rates may add up to exactly 1, and not to more."""
    faults = Faults(drop=0.5, delay=rate)
    if is_valid:
        assert SimulatedExchange(settings(faults=faults)).faults.automatic == faults
    else:
        with pytest.raises(UsageError, match="add up"):
            SimulatedExchange(settings(faults=faults))


@pytest.mark.parametrize(("size", "kept"), [(KEPT_BYTES, KEPT_BYTES), (KEPT_BYTES + 1, KEPT_BYTES)])
def test_record_keeps_the_start_of_a_large_frame(size: int, kept: int) -> None:
    """A frame of up to 64 KiB is recorded completely, a larger one up to there."""
    record = Record(1)
    record.frame(1, START, Outgoing(0, b"x" * size))
    assert len(record.sent[0].data) == kept


@pytest.mark.parametrize("way", DAMAGES)
def test_damage_makes_a_frame_malformed(way: str) -> None:
    """In each way the next ticker cannot be decoded; the record keeps what it would have been."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.damage(way, 3), protocol="coinbase-exchange")
    damaged = [sent for sent in exchange.sent if sent.fault is Fault.DAMAGE]
    assert len(damaged) == 3
    assert {sent.data for sent in damaged} <= set(frames)
    with_price = [sent for sent in damaged if b'"price"' in sent.original]
    assert with_price
    for sent in with_price:
        assert decode_any(sent.original, 0).ticks
        with pytest.raises(MalformedTick):
            decode_any(sent.data, 0)


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_mistimed_frames_have_other_times_only(protocol: str) -> None:
    """The next frames are 299 s ahead, and equal otherwise; with a wrong clock all are."""
    _, exchange, _ = heard(strike=lambda exchange: exchange.faults.mistime(299.0, 5), protocol=protocol)
    wrong = [sent for sent in exchange.sent if sent.fault is Fault.MISTIME]
    assert len(wrong) == 5
    for sent in wrong:
        assert decode_any(sent.data, 0).time in {0, decode_any(sent.original, 0).time + 299 * SECOND_NS}
    frames, _, _ = heard(strike=lambda exchange: exchange.faults.set_clock(-3600.0), protocol=protocol)
    times = [tick.time for frame in frames for tick in decode_any(frame, 0).ticks]
    assert times
    assert max(times) < START - 3500 * SECOND_NS


def test_reset_begins_the_numbers_again() -> None:
    """After a reset on Advanced Trade the next message has the number 0."""

    async def run() -> list[int]:
        async with SimulatedExchange(settings(seconds=20, speed=10.0)) as exchange, connect(exchange.url()) as client:
            await client.send(TICKER)
            before = [await client.recv(decode=False) for _ in range(5)]
            exchange.faults.reset()
            return numbers(before + await rest(client))

    sent = asyncio.run(run())
    (reset,) = [place for place in range(1, len(sent)) if sent[place] < sent[place - 1]]
    assert sent[reset:] == list(range(len(sent) - reset))
