"""Pages of trades by id from Binance and Kraken, and one interface over all venues."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeds.rest_venues import PRODUCTS, VENUES, Venue, binance_trade, client_of, kraken_trade, market_of
from tests.history.trades_exchange import NOON, FakeTime, trade_at
from volspike.errors import DataError, MalformedTick, UsageError
from volspike.feeds.rest import TradePages
from volspike.feeds.trade_pages import decode_binance_trades, decode_kraken_trades, trade_pages
from volspike.market import Side
from volspike.market.time import parse_time


@pytest.mark.parametrize("name", VENUES)
@given(
    missing=st.sets(st.integers(1, 60), max_size=50),
    after=st.one_of(st.none(), st.integers(0, 70)),
    limit=st.integers(1, 70),
)
def test_pages_of_every_venue_are_by_id(name: str, missing: set[int], after: int | None, limit: int) -> None:
    """A page is the newest trades below an id: a part of the requested ones, empty only if there is none."""
    trades = market_of(name, [n for n in range(1, 61) if n not in missing], lambda n: NOON + n // 2 * 250_000_000)
    pages: TradePages = client_of(Venue(name, trades))
    below = [tick for tick in trades if after is None or tick.trade_id < after]
    page = pages.trades(PRODUCTS[name], after=after, limit=limit)
    assert list(map(str, page)) == list(map(str, below[len(below) - len(page) :]))
    assert len(page) <= limit
    assert bool(page) == bool(below)
    assert after is None or not below or page[0].trade_id >= after - limit or len(page) <= limit


@pytest.mark.parametrize("name", VENUES)
def test_every_trade_of_a_long_range_comes_once(name: str) -> None:
    """Walking back over 5 000 trades, which come in bursts and have missing ids, finds each of them."""

    def bursts(trade_id: int) -> int:
        return NOON + trade_id // 700 * 3_600_000_000_000 + trade_id % 700 * 1_000_000

    trades = market_of(name, [n for n in range(1, 5001) if not 2_000 <= n < 2_100], bursts)
    venue = Venue(name, trades)
    pages: TradePages = client_of(venue)
    found: list[int] = []
    cursor: int | None = None
    while page := pages.trades(PRODUCTS[name], after=cursor):
        found = [tick.trade_id for tick in page] + found
        cursor = page[0].trade_id
    assert found == [tick.trade_id for tick in trades]
    assert pages.requests < 60


def test_kraken_finds_an_id_by_its_time_in_few_requests() -> None:
    """Among 100 000 trades of two years with bursts, a trade is found within a dozen requests."""
    year = 365 * 86_400_000_000_000

    def bursts(trade_id: int) -> int:
        return NOON + trade_id // 10_000 * year // 10 + trade_id % 10_000 * 1_000_000

    trades = market_of("kraken", list(range(1, 100_001)), bursts)
    for wanted in (3, 31_337, 60_001, 99_000, 100_000):
        pages = client_of(Venue("kraken", trades))
        assert [tick.trade_id for tick in pages.trades("kraken:BTC-USD", after=wanted + 1, limit=1)] == [wanted]
        assert pages.requests <= 20


def test_kraken_finds_the_trades_around_a_time() -> None:
    """They begin before the time, so that a search by time needs no more requests."""
    trades = market_of("kraken", list(range(1, 2001)), lambda n: NOON + n * 10_000_000_000)
    pages = client_of(Venue("kraken", trades))
    around = pages.trades_at("kraken:BTC-USD", NOON + 5_005_000_000_000)
    assert around[0].trade_id <= 500
    assert around[-1].trade_id >= 501
    assert pages.requests < 4
    assert client_of(Venue("binance", [])).trades_at("binance:BTC-USDT", NOON) == ()


def test_times_and_sides_are_exact() -> None:
    """Binance's µs and Kraken's decimal seconds lose no digit; a buying maker means that the taker sold."""
    (binance,) = decode_binance_trades(
        '[{"id":28457,"price":"4.00000100","qty":"12.0","quoteQty":"48","time":1499865549590123,"isBuyerMaker":true}]',
        "binance:BTC-USDT",
    )
    assert (binance.time, binance.side, binance.trade_id) == (1_499_865_549_590_123_000, Side.SELL, 28457)
    (kraken,) = decode_kraken_trades(
        '{"error":[],"result":{"XXBTZUSD":[["30243.4","0.345",1688669597.827736912,"b","m","",61044952]],"last":"1"}}',
        "kraken:BTC-USD",
    )
    assert (kraken.time, kraken.side) == (1_688_669_597_827_736_912, Side.BUY)
    assert (kraken.trade_id, kraken.price, kraken.last_size) == (61044952, 30243.4, 0.345)
    assert parse_time("2023-07-06T18:53:17.827736912Z") == kraken.time


def test_times_of_binance_are_requested_in_microseconds() -> None:
    """Its times are in milliseconds by default."""
    venue = Venue("binance", market_of("binance", [1], lambda _: NOON))
    client_of(venue).trades("binance:BTC-USDT")
    assert venue.headers[0]["x-mbx-time-unit"] == "MICROSECOND"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("binance", "[{}]"),
        ("binance", '{"code":0}'),
        ("binance", '[{"id":1,"price":"0","qty":"1","time":1,"isBuyerMaker":true}]'),
        ("binance", '[{"id":1,"price":"1","qty":"nan","time":1,"isBuyerMaker":true}]'),
        ("kraken", "{}"),
        ("kraken", '{"error":[],"result":{"A":[],"B":[]}}'),
        ("kraken", '{"error":[],"result":{"A":[["1","1",1.5,"b","m",""]]}}'),
        ("kraken", '{"error":[],"result":{"A":[["1","1",1.5,"x","m","",1]]}}'),
        ("kraken", '{"error":[],"result":{"A":[["0","1",1.5,"b","m","",1]]}}'),
        ("kraken", '{"error":[],"result":{"A":[["1","1",NaN,"b","m","",1]]}}'),
        ("kraken", '{"error":[],"result":{"A":[["1","1",1e99,"b","m","",1]]}}'),
    ],
)
def test_a_page_that_cannot_be_read_is_an_error(name: str, body: str) -> None:
    """It names the exchange, and is no empty page."""
    venue = Venue(name, [])
    venue.faults[0] = httpx.Response(200, text=body)
    with pytest.raises(MalformedTick, match="a page of trades from https://here"):
        client_of(venue).trades(PRODUCTS[name])


def test_an_exchange_that_ignores_the_cursor_is_refused() -> None:
    """Following such pages would never end."""
    venue = Venue("binance", [])
    venue.faults[0] = httpx.Response(200, json=[binance_trade(trade_at(1, NOON))])
    with pytest.raises(MalformedTick, match="Expected trades from 3980, got 1"):
        client_of(venue).trades("binance:BTC-USDT", after=3_990, limit=10)
    venue = Venue("kraken", [])
    venue.faults[0] = venue.faults[1] = httpx.Response(
        200, text=f'{{"result":{{"A":[{kraken_trade(trade_at(9, NOON))}]}}}}'
    )
    with pytest.raises(MalformedTick, match="Expected trades after"):
        client_of(venue).trades_at("kraken:BTC-USD", 2 * NOON)


def test_kraken_s_rate_limit_is_waited_for() -> None:
    """It comes with the status 200, and the request is made again."""
    venue = Venue("kraken", market_of("kraken", [1, 2], lambda n: NOON + n))
    venue.faults[0] = httpx.Response(200, json={"error": ["EGeneral:Too many requests"]})
    clock = FakeTime()
    assert len(client_of(venue, clock).trades("kraken:BTC-USD")) == 2
    assert clock.slept


def test_a_ban_of_binance_is_waited_for() -> None:
    """418 says how long in ``Retry-After``."""
    venue = Venue("binance", market_of("binance", [1], lambda n: NOON + n))
    venue.faults[0] = httpx.Response(418, json={}, headers={"Retry-After": "120"})
    clock = FakeTime()
    assert len(client_of(venue, clock).trades("binance:BTC-USDT")) == 1
    assert max(clock.slept) == 120.0


@pytest.mark.parametrize(
    ("name", "product"), [("binance", "binance:XX-YY"), ("kraken", "kraken:XX-YY"), ("coinbase", "XX-YY")]
)
def test_an_unknown_product_is_a_usage_error(name: str, product: str) -> None:
    """It names the product; a refusal for another reason is a data error."""
    with pytest.raises(UsageError, match=product):
        client_of(Venue(name, [])).trades(product)
    venue = Venue(name, [])
    venue.faults[0] = httpx.Response(403, json={"error": ["EAccess:no"], "code": -1, "msg": "no", "message": "no"})
    with pytest.raises(DataError, match="403"):
        client_of(venue).trades(PRODUCTS[name])


def test_products_and_venues_are_not_mixed_up() -> None:
    """A client refuses the products of another venue, and a venue without trades by id is named."""
    for name in VENUES:
        for other in set(VENUES) - {name}:
            with pytest.raises(UsageError, match="product names of"):
                client_of(Venue(name, [])).trades(PRODUCTS[other])
    with pytest.raises(UsageError, match="okx has no public trades by trade id; available: binance, coinbase, kraken"):
        trade_pages("okx")
