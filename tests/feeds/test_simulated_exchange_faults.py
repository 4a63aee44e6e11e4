"""Each fault of the simulated exchange does what it says, and the record says that it did."""

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
from volspike.feeds.protocol import decode_any
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import Fault, Faults, Record
from volspike.feeds.simulation.protocols import Outgoing
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.market import parse_time

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
    """What a client of the ticker hears; ``strike`` is called once it is connected, before it subscribes."""

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
    """All that struck but the close at the end of the market."""
    return [each.fault for each in exchange.injected][:-1]


def on_the_wire(exchange: SimulatedExchange) -> list[bytes]:
    return [sent.data for sent in exchange.sent if not sent.is_lost]


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_random_faults_are_recorded_frame_by_frame(protocol: str) -> None:
    """With everything going wrong at once, the client hears exactly what the record says was sent, in its order."""
    faults = Faults(
        drop=0.05, delay=0.05, delay_s=0.001, duplicate=0.05, reorder=0.05, skip=0.02, malformed=0.05, unknown=0.05,
        silence_every_s=11, silence_s=2, snapshot_every_s=13, snapshot_bytes=10_000,
    )  # fmt: skip
    frames, exchange, _ = heard(faults, protocol=protocol)
    assert frames == on_the_wire(exchange)
    assert exchange.record.frames == len(frames)
    assert exchange.record.lost == sum(sent.is_lost for sent in exchange.sent) > 10
    assert set(faults_of(exchange)) == set(Fault) - {Fault.CLOSE, Fault.SLOW_READER, Fault.UNSENT}


def test_dropped_numbers_are_the_client_s_gaps() -> None:
    """A dropped frame uses up its number: the numbers that a client misses are those recorded as lost."""
    frames, exchange, _ = heard(Faults(drop=0.1))
    heard_numbers = numbers(frames)
    lost = {sent.sequence for sent in exchange.sent if sent.is_lost}
    assert len(lost) > 20
    assert lost == set(range(max(heard_numbers) + 1)) - set(heard_numbers) | {n for n in lost if n > max(heard_numbers)}
    assert [each.sequence for each in exchange.injected if each.fault is Fault.DROP] == sorted(lost)


def test_skipped_numbers_lose_nothing() -> None:
    """A jump in the numbers without a lost frame."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.skip(5))
    assert numbers(frames) == list(range(5, 5 + len(frames)))
    assert exchange.record.lost == 0
    assert faults_of(exchange) == [Fault.SKIP]


def test_skipping_on_exchange_shifts_the_products_numbers() -> None:
    """All later sequence numbers are higher by what was skipped, and the trades are the same."""
    plain, skipped = (
        [json.loads(frame) for frame in heard(strike=strike, protocol="coinbase-exchange")[0][1:]]
        for strike in (lambda _: 0, lambda exchange: exchange.faults.skip(7))
    )
    assert [frame["sequence"] + 7 for frame in plain] == [frame["sequence"] for frame in skipped]


def test_a_duplicate_comes_twice_with_its_number() -> None:
    """The same bytes once more, right behind."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.duplicate(2))
    assert numbers(frames)[:5] == [0, 0, 1, 1, 2]
    assert frames[0] == frames[1]
    assert faults_of(exchange) == [Fault.DUPLICATE] * 2


def test_neighbours_change_places() -> None:
    """A frame comes behind the next one; nothing is lost."""
    frames, exchange, _ = heard(strike=lambda exchange: exchange.faults.reorder())
    assert numbers(frames)[:4] == [1, 0, 2, 3]
    assert [sent.sequence for sent in exchange.sent][:2] == [1, 0]
    assert exchange.sent[1].fault is Fault.REORDER


def test_a_delay_holds_everything_back() -> None:
    """The frame behind the delay comes no sooner, and in its place."""

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


def test_silence_loses_what_would_have_been_said() -> None:
    """For so many simulated seconds nothing comes, then the numbers go on behind those of the lost."""
    frames, exchange, _ = heard(Faults(silence_every_s=20, silence_s=10))
    lost = [sent for sent in exchange.sent if sent.fault is Fault.SILENCE]
    assert numbers(frames) == [sent.sequence for sent in exchange.sent if sent.fault is None]
    assert all(20 <= (sent.time - START) / 1e9 % 20 + 20 < 30.01 for sent in lost)
    assert len({(sent.time - START) // (20 * 10**9) for sent in lost}) == 2
    assert faults_of(exchange)[:2] == [Fault.SILENCE] * 2


@pytest.mark.parametrize(("code", "seen"), [(1001, 1001), (1012, 1012), (4000, 4000), (0, 1006)])
def test_a_connection_is_closed_with_each_code(code: int, seen: int) -> None:
    """After so many simulated seconds the client sees the code, or 1006 where there was no close frame."""
    frames, exchange, client = heard(Faults(close_every_s=5, close_codes=(code,)))
    assert client.close_code == seen
    assert numbers(frames) == list(range(len(frames)))
    assert frames == on_the_wire(exchange)
    assert [each.fault for each in exchange.injected] == [Fault.CLOSE]
    assert 5.0 <= (exchange.injected[0].time - START) / 1e9 <= 5.25


def test_a_connection_is_closed_on_demand_and_made_anew() -> None:
    """The market stands still meanwhile at speed 0: the new connection's numbers begin anew, its times go on."""

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


def test_malformed_frames_are_one_too_many() -> None:
    """They cannot be decoded, and all numbered frames come besides."""
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
    """A test may send what it likes."""
    frames, _, _ = heard(strike=lambda exchange: exchange.faults.malformed(b"\x00 what"))
    assert frames[0] == b"\x00 what"


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_unknown_messages_are_ignorable(protocol: str) -> None:
    """They decode to a name that nobody knows; on Advanced Trade they are numbered like the rest."""
    frames, exchange, _ = heard(Faults(unknown=0.2), protocol=protocol)
    decoded = [decode_any(frame, 0) for frame in frames]
    unknown = [frame for frame in decoded if frame.ignored == "weather"]
    assert len(unknown) == Counter(faults_of(exchange))[Fault.UNKNOWN] > 10
    if protocol == "coinbase":
        assert [frame.sequence for frame in decoded] == list(range(len(frames)))


@pytest.mark.parametrize(("protocol", "name"), [("coinbase", "l2_data"), ("coinbase-exchange", "snapshot")])
def test_a_snapshot_of_five_megabytes(protocol: str, name: str) -> None:
    """It arrives whole, is valid JSON, and is larger than a websocket client's usual limit."""
    frames, exchange, _ = heard(
        strike=lambda exchange: exchange.faults.snapshot("BTC-USD"), protocol=protocol, seconds=1
    )
    assert 5_000_000 <= len(frames[0]) < 6_500_000
    assert decode_any(frames[0], 0).ignored == name
    json.loads(frames[0])
    assert frames[0].startswith(exchange.sent[0].data)
    assert len(exchange.sent[0].data) == 65_536


def test_standing_faults_can_be_changed() -> None:
    """What goes wrong by itself holds from the next frame on; impossible rates are refused."""

    def all_lost(exchange: SimulatedExchange) -> None:
        exchange.faults.standing = Faults(drop=1.0)
        with pytest.raises(UsageError):
            exchange.faults.standing = Faults(drop=0.6, skip=0.6)

    frames, exchange, _ = heard(strike=all_lost)
    assert frames == []
    assert exchange.record.lost == len(exchange.sent) > 100


def test_one_of_several_is_struck() -> None:
    """A fault may be for one connection only; the others' frames are whole."""

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
    """However long it runs, it does not grow."""
    record = Record(kept=2)
    for number in range(5):
        record.frame(1, 0, Outgoing(number, b"x"), Fault.DROP if number == 4 else None)
        record.fault(1, 0, Fault.SKIP, number)
    assert [sent.sequence for sent in record.sent] == [each.sequence for each in record.injected] == [3, 4]
    assert (record.frames, record.lost, record.faults[Fault.SKIP]) == (4, 1, 5)
