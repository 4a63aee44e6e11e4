"""The six protocols of the simulated exchange: one market and the same faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.feeds.venue_frames import (
    PRODUCTS,
    SECONDS,
    START,
    RawTrade,
    address,
    as_sent,
    day,
    heard,
    market_trades,
    quotes,
    requests,
    rest,
    settings,
    trades,
    trades_of,
)  # fmt: skip
from volspike.feeds.simulation.exchange import PROTOCOLS, SERVERS, SimulatedExchange
from volspike.feeds.simulation.faults import BAD_PRICES, Fault, Faults, Sent, damage_frame, shift_times
from volspike.feeds.simulation.market import QUARTER_NS
from volspike.feeds.simulation.protocols import Handshake, ProductDay, TradeNumbers
from volspike.market import SECOND_NS

VENUES = tuple(name for name in PROTOCOLS if not name.startswith("coinbase"))
BY_IDS = (*VENUES, "coinbase-exchange")
"""The protocols that do not number their messages."""


def on_the_wire(exchange: SimulatedExchange) -> list[str]:
    return [sent.data.decode(errors="surrogateescape") for sent in exchange.sent if not sent.is_lost]


def by_product(found: list[RawTrade]) -> dict[str, list[RawTrade]]:
    return {product: [trade for trade in found if trade.product == product] for product in PRODUCTS}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_sends_the_trades_of_the_market(protocol: str) -> None:
    """Product, id, price, size, taker's side and time to the unit of the venue, in the order of each product."""
    frames, exchange = heard(protocol)
    expected = by_product([as_sent(protocol, trade) for trade in market_trades(PRODUCTS, SECONDS, START)])
    found = by_product(trades(protocol, frames))
    for product in PRODUCTS:
        count = len(found[product])
        assert found[product] == expected[product][:count]
        assert len(expected[product]) - count <= (20 if protocol == "coinbase" else 0)  # its last batch is not sent
    assert frames == on_the_wire(exchange)
    assert [each.fault for each in exchange.injected] == [Fault.CLOSE]


@pytest.mark.parametrize("product", PRODUCTS)
def test_all_venues_have_the_same_quotes(product: str) -> None:
    """Binance, OKX and Bybit send every change of the best quotes, Kraken those of a price; trades move them."""
    found = {protocol: quotes(protocol, heard(protocol)[0], product) for protocol in VENUES}
    assert found["okx"][0] == found["bybit"][0] == found["kraken"][0]  # the quotes at the subscription
    assert found["okx"][1:] == found["bybit"][1:] == found["binance"]
    prices = [quote[::2] for quote in found["okx"]]
    changes = [price for place, price in enumerate(prices) if place == 0 or price != prices[place - 1]]
    assert [quote[::2] for quote in found["kraken"]] == changes
    after_trades = [(t.best_bid, t.bid_size, t.best_ask, t.ask_size) for t in market_trades(PRODUCTS, SECONDS, START)
                    if t.product_id == product]  # fmt: skip
    assert set(after_trades) <= set(found["okx"])
    assert len(found["okx"]) > len(set(after_trades))


def test_quotes_between_trades_change_one_size() -> None:
    """In a quarter of a second without a trade, one best quote may have another size; prices stay."""
    (first, *_) = market_trades(PRODUCTS, SECONDS, START)
    known = day(first)
    assert not known.requote(first.time + QUARTER_NS - 1)
    before = known.book
    assert before is not None
    sides: Counter[str] = Counter()
    for quarter in range(1, 200):
        was = known.book
        changed = known.requote(first.time + quarter * QUARTER_NS)
        now = known.book
        assert was is not None
        assert now is not None
        assert (now.bid, now.ask) == (before.bid, before.ask)
        assert now.update == was.update + changed
        sides["bid"] += now.bid_size != was.bid_size
        sides["ask"] += now.ask_size != was.ask_size
        assert (now.bid_size != was.bid_size) + (now.ask_size != was.ask_size) == changed
    assert min(sides.values()) > 30


ALL = Faults(
    drop=0.05, delay=0.05, delay_s=0.001, duplicate=0.05, reorder=0.05, skip=0.02, malformed=0.05, unknown=0.05,
    damage=0.05, mistime=0.05, silence_every_s=7, silence_s=1, snapshot_every_s=6, snapshot_bytes=10_000,
)  # fmt: skip


@pytest.mark.parametrize("protocol", VENUES)
def test_all_faults_are_recorded_and_repeat(protocol: str) -> None:
    """The client receives exactly the frames recorded as sent, and the same seed gives the same frames and faults."""
    frames, exchange = heard(protocol, faults=ALL)
    assert frames == on_the_wire(exchange)
    assert exchange.record.lost == sum(sent.is_lost for sent in exchange.sent) > 10
    never = {Fault.RESET, Fault.SLOW_READER, Fault.UNSENT, Fault.LIFETIME, Fault.SHUTDOWN, Fault.RULE}
    assert {each.fault for each in exchange.injected} == set(Fault) - never
    again, other = heard(protocol, faults=ALL), heard(protocol, faults=ALL, seed=8)
    assert again[0] == frames
    assert again[1].injected == exchange.injected
    assert other[0] != frames


@pytest.mark.parametrize("protocol", BY_IDS)
def test_dropped_trades_are_missing_ids(protocol: str) -> None:
    """The ids missing at the client are those of the trades in lost frames, between its first and last trade."""
    frames, exchange = heard(protocol, faults=Faults(drop=0.2))
    lost = by_product([t for sent in exchange.sent if sent.is_lost for t in trades_of(protocol, sent.data)])
    for product, found in by_product(trades(protocol, frames)).items():
        ids = {trade.trade_id for trade in found}
        missing = set(range(min(ids), max(ids))) - ids
        assert len(missing) > 5
        assert missing == {t.trade_id for t in lost[product] if min(ids) < t.trade_id < max(ids)}


@pytest.mark.parametrize("protocol", VENUES)
def test_skipped_ids_lose_nothing(protocol: str) -> None:
    """All later ids are higher by the numbers skipped; the trades are the same."""
    plain = trades(protocol, heard(protocol)[0])
    skipped = trades(protocol, heard(protocol, lambda exchange: exchange.faults.skip(5))[0])
    assert [trade._replace(trade_id=trade.trade_id + 5) for trade in plain] == skipped


@pytest.mark.parametrize("protocol", VENUES)
def test_reset_ids_begin_at_one(protocol: str) -> None:
    """After a reset the next trade of every product has the id 1; a skip counts from there."""
    found = by_product(trades(protocol, heard(protocol, lambda exchange: exchange.faults.reset())[0]))
    for own in found.values():
        assert [trade.trade_id for trade in own] == list(range(1, len(own) + 1))


def test_skip_after_reset() -> None:
    """A later skip raises the ids that began again."""
    first, second, third = market_trades(("BTC-USD",), SECONDS, START)[:3]
    numbers = TradeNumbers({"BTC-USD": day(first)})
    numbers.skip(7)
    assert numbers.of(second) == second.trade_id + 7
    numbers.reset()
    assert numbers.of(second) == 1
    numbers.skip(7)
    assert numbers.of(third) == 9


def damaged(way: str) -> Callable[[SimulatedExchange], object]:
    return lambda exchange: exchange.faults.damage(way, 1_000_000)


@pytest.mark.parametrize("way", BAD_PRICES)
@pytest.mark.parametrize("protocol", VENUES)
def test_damage_invalidates_a_price(protocol: str, way: str) -> None:
    """No damaged trade has a valid price; everything but the price is unchanged, and the record keeps the original."""
    _, exchange = heard(protocol, damaged(way), seconds=3)
    hit = [sent for sent in exchange.sent if sent.fault is Fault.DAMAGE and _is_trade(protocol, sent)]
    assert len(hit) > 5
    for sent in hit:
        with pytest.raises((ValueError, KeyError, TypeError, IndexError, AttributeError)):
            trades_of(protocol, sent.data)
        assert len(sent.data) > 0.8 * len(sent.original)


def _is_trade(protocol: str, sent: Sent) -> bool:
    return bool(trades_of(protocol, sent.original))


@pytest.mark.parametrize(
    ("frame", "bad"),
    [
        (b'{"bids":[["90000.01","2"]]}', b'{"bids":[["-1","2"]]}'),
        (b'{"b":"1.5","B":"2"}', b'{"b":"-1","B":"2"}'),
        (b'{"bid":1.5,"bid_qty":2}', b'{"bid":-1,"bid_qty":2}'),
    ],
)
def test_damage_of_quotes(frame: bytes, bad: bytes) -> None:
    """The first best quote is damaged in the form of its protocol."""
    assert damage_frame(frame, "negative") == bad


@pytest.mark.parametrize("protocol", VENUES)
def test_mistimed_trades_have_other_times_only(protocol: str) -> None:
    """Frames are 299 s ahead and equal otherwise."""
    _, exchange = heard(protocol, lambda exchange: exchange.faults.mistime(299.0, 60))
    wrong = [sent for sent in exchange.sent if sent.fault is Fault.MISTIME and _is_trade(protocol, sent)]
    assert len(wrong) > 10
    for sent in wrong:
        original = trades_of(protocol, sent.original)
        assert trades_of(protocol, sent.data) == [t._replace(time=t.time + 299 * SECOND_NS) for t in original]


def test_times_of_answers_shift_with_the_clock() -> None:
    """The times of Kraken's answers, and those of Binance in milliseconds, move with the exchange's clock."""
    assert shift_times(b'{"time_in":"2026-01-05T00:00:00Z"}', 1.0) == b'{"time_in":"2026-01-05T00:00:01Z"}'
    assert shift_times(b'{"E":1767571200013,"t":1767571200013}', 1.5) == b'{"E":1767571201513,"t":1767571200013}'


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_additional_frames(protocol: str) -> None:
    """Unknown messages and books are valid JSON without trades, malformed ones are none or have no trades to read."""

    def strike(exchange: SimulatedExchange) -> None:
        exchange.faults.unknown()
        exchange.faults.snapshot("BTC-USD", 100_000)
        for data in protocol_malformed(exchange):
            exchange.faults.malformed(data)

    frames, exchange = heard(protocol, strike, seconds=2)
    unknown, book, *malformed = [frame for frame, sent in zip(frames, exchange.sent, strict=True) if sent.fault]
    assert b"weather" in unknown.encode()
    assert len(book) >= 100_000
    assert trades_of(protocol, unknown) == trades_of(protocol, book) == []
    assert len(malformed) == 2


def protocol_malformed(exchange: SimulatedExchange) -> tuple[bytes, bytes]:
    (connection,) = exchange._connections
    return connection.protocol.malformed


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_rejected_product_is_an_error(protocol: str, is_named: bool) -> None:
    """The exchange refuses a product, and names it or not."""

    async def run() -> list[str]:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange, connect(exchange.url(protocol)) as client:
            exchange.faults.rejected["ETH-USDT"] = is_named
            await client.send(requests(protocol, ("ETH-USDT",))[0])
            return [str(await client.recv()) for _ in range(2 if protocol == "kraken" else 1)]

    answer = asyncio.run(run())[-1]
    assert any(word in answer.lower() for word in ("error", "invalid", "not supported"))
    assert any(name in answer.upper() for name in ("ETH-USDT", "ETHUSDT", "ETH/USDT")) is is_named


@pytest.mark.parametrize("protocol", VENUES)
def test_unsubscribing_ends_the_data(protocol: str) -> None:
    """A product has trades and quotes while it is subscribed; the other products go on."""
    known = {product: ProductDay() for product in PRODUCTS}
    server = SERVERS[protocol](Handshake(1, "", START, known))
    for message in requests(protocol, PRODUCTS):
        server.answer(message, START)
    sent = {product: [0, 0] for product in PRODUCTS}
    made = market_trades(PRODUCTS, SECONDS, START)
    for number, trade in enumerate(made):
        if number == len(made) // 2:
            before = {product: list(counts) for product, counts in sent.items()}
            for message in requests(protocol, ("BTC-USD",), subscribe=False):
                server.answer(message, START)
        known[trade.product_id].add(trade)
        sent[trade.product_id][0] += len(server.trade_frames(trade))
        sent[trade.product_id][1] += len(server.quote_frames(trade.product_id, trade.time))
    assert min(before["BTC-USD"]) > 10
    assert sent["BTC-USD"] == before["BTC-USD"]
    assert all(after > was + 10 for after, was in zip(sent["ETH-USDT"], before["ETH-USDT"], strict=True))


def test_the_market_awaits_its_clients() -> None:
    """At speed 0 the market begins with the number of clients it is given, so that none of them misses a trade."""

    async def run() -> list[list[str]]:
        async with SimulatedExchange(settings(clients=2, subscribes=3)) as exchange, asyncio.timeout(20):
            first, second = exchange.url("okx"), exchange.url("bybit")
            async with connect(first) as one:
                await one.send(requests("okx", PRODUCTS)[0])
                for _ in range(2 * 2 * len(PRODUCTS)):
                    await one.recv()  # confirmations, last trades and quotes: nothing after them
                async with connect(second) as two:
                    await two.send(requests("bybit", PRODUCTS)[0])
                    return list(await asyncio.gather(rest(one), rest(two)))

    okx, bybit = asyncio.run(run())
    assert [t[:5] for t in trades("okx", okx)] == [t[:5] for t in trades("bybit", bybit)]
    assert trades("okx", okx)[0].trade_id == market_trades(PRODUCTS, SECONDS, START)[0].trade_id


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_busy_exchange_refuses_handshakes(protocol: str) -> None:
    """Status 429 with the time to wait, and 404 outside the protocols."""

    async def run() -> list[int]:
        async with SimulatedExchange(settings()) as exchange:
            exchange.faults.retry_after_s = 3
            found = []
            for url in (
                address(protocol, exchange.url(protocol), PRODUCTS),
                exchange.url(protocol).replace(protocol, "v2"),
            ):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(url)
                found.append(refused.value.response.status_code)
            return found

    assert asyncio.run(run()) == [429, 404]
