"""Public trades over REST by trade id of Binance spot and Kraken, and the client of any venue that has them.

- Binance: ``GET /api/v3/historicalTrades?symbol=…&fromId=…&limit=…``, oldest first, without a key
  (https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#old-trade-lookup). The ids
  are those of the stream ``trade``; ``aggTrades`` has ids of its own.
- Kraken: ``GET /0/public/Trades?pair=…&since=…``, oldest first, by time in ns
  (https://docs.kraken.com/api/docs/rest-api/get-recent-trades). Trades carry their id, and the client finds the page of
  an id by the ids and times that it has seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import httpx
import msgspec

from volspike.errors import DataError, MalformedTick, UsageError
from volspike.feeds.messages import decode_json, with_path_prefix
from volspike.feeds.rest import (
    LONGEST_PAGE,
    TradePages,
    TradePosition,
    TradesClient,
    is_temporary_failure,
    trade_tick,
    venue_symbol,
)
from volspike.market import SECOND_NS, Side, Tick
from volspike.market.product import COINBASE

BINANCE_REST_URL = "https://api.binance.com"
KRAKEN_REST_URL = "https://api.kraken.com"
BINANCE_REQUESTS_PER_SECOND = 2.0
"""A page weighs 25, and an address may spend 6,000 per minute: 4 pages per second; half is left to others."""
KRAKEN_REQUESTS_PER_SECOND = 1.0
"""Kraken's limit for public requests."""


class _BinanceRefusal(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _KrakenErrors(msgspec.Struct):
    error: list[str] = []


_BINANCE_REFUSAL = msgspec.json.Decoder(_BinanceRefusal)
_KRAKEN_ERRORS = msgspec.json.Decoder(_KrakenErrors)


class _BinanceTrade(msgspec.Struct, gc=False):
    id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 2)]
    price: float
    qty: float
    time: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    isBuyerMaker: bool  # noqa: N815 (its name in the message)


_BINANCE_PAGE = msgspec.json.Decoder(list[_BinanceTrade], strict=False)
_BINANCE_UNKNOWN_SYMBOL = -1121


def decode_binance_trades(body: bytes | str, product_id: str) -> tuple[Tick, ...]:
    """The trades of a page of Binance whose times are in µs, in the page's order.

    Raises:
        MalformedTick: the page does not have the documented shape; the path names the trade and field.
    """
    trades = []
    page: list[_BinanceTrade] = decode_json(_BINANCE_PAGE, body)
    for i, trade in enumerate(page):
        side = Side.SELL if trade.isBuyerMaker else Side.BUY
        try:
            trades.append(trade_tick(product_id, trade.id, trade.time * 1000, trade.price, trade.qty, side, "$.qty"))
        except MalformedTick as fault:
            raise with_path_prefix(fault, f"$[{i}]") from fault
    return tuple(trades)


class BinanceTradesClient(TradePages):
    """Downloads pages of trades of Binance spot.

    A page begins at an id, which is ``limit`` below the requested end; where ids are missing there, it goes back
    further.
    """

    default_url = BINANCE_REST_URL
    default_rate = BINANCE_REQUESTS_PER_SECOND

    def trades(self, product_id: str, *, after: int | None = None, limit: int = LONGEST_PAGE) -> tuple[Tick, ...]:
        """As ``TradePages.trades``."""
        if after is None:
            return self._page(product_id, None, limit)
        stride = limit
        while True:
            first = max(0, after - stride)
            page = self._page(product_id, first, LONGEST_PAGE if stride > limit else limit)
            found = tuple(tick for tick in page if tick.trade_id < after)
            if found or first == 0:
                return found[-limit:]
            stride *= 4

    def _page(self, product_id: str, first: int | None, limit: int) -> tuple[Tick, ...]:
        parameters: dict[str, str | int] = {
            "symbol": venue_symbol(product_id, "binance").replace("-", ""),
            "limit": limit,
        }
        if first is not None:
            parameters["fromId"] = first
        answer = self._rest.get(
            "/api/v3/historicalTrades", parameters, headers={"X-MBX-TIME-UNIT": "MICROSECOND"}, is_temporary=_is_busy
        )
        if answer.status_code != 200:
            code, reason = _binance_reason(answer)
            if code == _BINANCE_UNKNOWN_SYMBOL:
                raise self._unknown(product_id, reason)
            raise self._refusal(product_id, answer, reason)
        page = self._decode(decode_binance_trades, answer.content, product_id)
        if first is not None and any(tick.trade_id < first for tick in page):
            oldest = min(tick.trade_id for tick in page)
            raise self._malformed(MalformedTick(f"Expected trades from {first}, got {oldest}"))
        return tuple(sorted(page, key=lambda tick: tick.trade_id))


_KrakenTrade = tuple[
    float, float, Decimal, Literal["b", "s"], str, str, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 2)]
]


class _KrakenPage(msgspec.Struct):
    error: list[str] = []
    result: dict[str, Any] = {}


_KRAKEN_PAGE = msgspec.json.Decoder(_KrakenPage, float_hook=Decimal)
_KRAKEN_SIDES = {"b": Side.BUY, "s": Side.SELL}
_KRAKEN_SYMBOLS = {"BTC": "XBT", "DOGE": "XDG"}
_REACH_NS = SECOND_NS
_FIRST_STRIDE_NS = 60 * SECOND_NS
_MOST_GUESSES = 100
_END_OF_TIME_S = 9_000_000_000


def decode_kraken_trades(body: bytes | str, product_id: str) -> tuple[Tick, ...]:
    """The trades of a page of Kraken, in the page's order; times are exact to the last digit sent.

    Raises:
        MalformedTick: the page does not have the documented shape; the path names the trade and field.
    """
    page = decode_json(_KRAKEN_PAGE, body)
    pairs = [rows for name, rows in page.result.items() if name != "last"]
    if len(pairs) != 1:
        raise MalformedTick(f"Expected the trades of one pair, got {len(pairs)}", "$.result")
    try:
        rows = msgspec.convert(pairs[0], list[_KrakenTrade], strict=False)
    except msgspec.ValidationError as error:
        raise MalformedTick(str(error), "$.result") from error
    trades = []
    for i, (price, size, when, side, _, _, trade_id) in enumerate(rows):
        if not 0 <= when < _END_OF_TIME_S:  # a Decimal may be infinite or no number
            raise MalformedTick(f"Expected seconds since 1970, got {when}", f"$.result[{i}][2]")
        time = int(when.scaleb(9))
        try:
            trades.append(trade_tick(product_id, trade_id, time, price, size, _KRAKEN_SIDES[side], "$[1]"))
        except MalformedTick as fault:
            raise with_path_prefix(fault, f"$.result[{i}]") from fault
    return tuple(trades)


class KrakenTradesClient(TradePages):
    """Downloads pages of trades of Kraken.

    Kraken's pages begin at a time. The client keeps the ids and times of the ends of its pages, and looks for an id
    between the nearest two; ids ascend with time.
    """

    default_url = KRAKEN_REST_URL
    default_rate = KRAKEN_REQUESTS_PER_SECOND

    def __init__(self, url: str | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._known: dict[str, list[TradePosition]] = {}

    def trades(self, product_id: str, *, after: int | None = None, limit: int = LONGEST_PAGE) -> tuple[Tick, ...]:
        """As ``TradePages.trades``."""
        if after is None:
            return self._page(product_id, None)[-limit:]
        while after > 0:
            wanted = max(0, after - limit)
            page = self._page_at_or_before(product_id, wanted)
            if page and page[0].trade_id >= after:  # the first trade of all
                break
            found = self._between(product_id, page, wanted, after)
            if found:
                return found
            after = wanted  # all of these ids are missing
        return ()

    def _between(self, product_id: str, page: tuple[Tick, ...], first: int, end: int) -> tuple[Tick, ...]:
        """The trades with ids from ``first`` to ``end`` - 1, of ``page`` and those after it."""
        found = [tick for tick in page if first <= tick.trade_id < end]
        while page and page[-1].trade_id < end - 1:
            last = page[-1]
            page = tuple(tick for tick in self._page(product_id, last.time - 1) if tick.trade_id > last.trade_id)
            found += [tick for tick in page if first <= tick.trade_id < end]
        return tuple(found)

    def trades_at(self, product_id: str, time: int) -> tuple[Tick, ...]:
        """Trades around ``time`` (ns UTC), of which the first is before it if any is.

        Raises: see ``TradePages.trades``.
        """
        reach = _REACH_NS
        page: tuple[Tick, ...] = ()
        while time - reach > 0:
            page = self._page(product_id, time - reach)
            if page and page[0].time < time:
                return page
            reach *= 8
        return page

    def _page_at_or_before(self, product_id: str, trade_id: int) -> tuple[Tick, ...]:
        """A page that begins at ``trade_id`` or less than a page before it; the first page of all if it is older."""
        known = self._known.setdefault(product_id, [])
        if not known or known[-1].trade_id <= trade_id:
            newest = self._page(product_id, None)
            if not newest or newest[0].trade_id <= trade_id:
                return newest
        stride = _FIRST_STRIDE_NS
        for turn in range(_MOST_GUESSES):
            at = bisect_left(known, (trade_id + 1, 0))
            above = known[at]
            below = known[at - 1] if at else None
            if below is None:
                since, stride = max(0, above.time - stride), 4 * stride
            elif trade_id - below.trade_id < LONGEST_PAGE or above.time - below.time <= 1:
                return self._page(product_id, below.time - 1)
            else:
                since = _time_between(below, above, trade_id, is_bisection=turn % 3 == 2)
            page = self._page(product_id, since)
            if (page and page[0].trade_id <= trade_id <= page[-1].trade_id) or since == 0:
                return page
            if not page or page[0].trade_id >= above.trade_id:
                self._know(product_id, TradePosition(above.trade_id, since))  # no trade lies between the two times
        raise DataError(f"{self.url}: the trade {trade_id} of {product_id} is not found by its time")

    def _page(self, product_id: str, since: int | None) -> tuple[Tick, ...]:
        """The trades after ``since`` (ns UTC), or the newest; ids ascend."""
        symbol = venue_symbol(product_id, "kraken")
        pair = "".join(_KRAKEN_SYMBOLS.get(part, part) for part in symbol.split("-"))
        parameters: dict[str, str | int] = {"pair": pair, "count": LONGEST_PAGE}
        if since is not None:
            parameters["since"] = max(0, since)
        answer = self._rest.get("/0/public/Trades", parameters, is_temporary=_is_kraken_busy)
        reason = _kraken_error(answer)
        if "Unknown asset pair" in reason:
            raise self._unknown(product_id, reason)
        if answer.status_code != 200 or reason:
            raise self._refusal(product_id, answer, reason or answer.reason_phrase)
        page = self._decode(decode_kraken_trades, answer.content, product_id)
        if since is not None and any(tick.time < since for tick in page):
            raise self._malformed(MalformedTick(f"Expected trades after {since} ns, got {min(t.time for t in page)}"))
        ordered = tuple(sorted(page, key=lambda tick: tick.trade_id))
        for tick in (*ordered[:1], *ordered[-1:]):
            self._know(product_id, TradePosition(tick.trade_id, tick.time))
        return ordered

    def _know(self, product_id: str, place: TradePosition) -> None:
        known = self._known.setdefault(product_id, [])
        at = bisect_left(known, place)
        if at == len(known) or known[at] != place:
            known.insert(at, place)


def _time_between(below: TradePosition, above: TradePosition, trade_id: int, *, is_bisection: bool) -> int:
    """A time (ns UTC) between two known trades at which a page is likely to contain ``trade_id``."""
    share = 0.5
    if not is_bisection:  # which bursts of trades need
        share = max(0.0, (trade_id - LONGEST_PAGE // 2 - below.trade_id) / (above.trade_id - below.trade_id))
    return below.time + max(1, int((above.time - below.time) * share))


TRADE_CLIENTS: Final[Mapping[str, type[TradePages]]] = {
    COINBASE: TradesClient,
    "binance": BinanceTradesClient,
    "kraken": KrakenTradesClient,
}
"""The venues whose past trades are found by id."""


def trade_pages(venue: str, url: str | None = None, rate: float | None = None, **options: Any) -> TradePages:
    """The client of a venue, by default at its public address and within its limit.

    Raises:
        UsageError: the venue has no public trades by id.
    """
    client = TRADE_CLIENTS.get(venue)
    if client is None:
        raise UsageError(f"{venue} has no public trades by trade id; available: {', '.join(sorted(TRADE_CLIENTS))}")
    return client(url, rate=rate, **options)


def _is_busy(answer: httpx.Response) -> bool:
    """Also 418, with which Binance bans an address that goes on after a 429, for the time in ``Retry-After``."""
    return answer.status_code == 418 or is_temporary_failure(answer)


def _binance_reason(answer: httpx.Response) -> tuple[int, str]:
    try:
        refusal = _BINANCE_REFUSAL.decode(answer.content)
    except ValueError:
        return 0, answer.reason_phrase
    return refusal.code, refusal.msg[:200] or answer.reason_phrase


def _kraken_error(answer: httpx.Response) -> str:
    """The errors in the body, which Kraken sends with the status 200."""
    try:
        return "; ".join(_KRAKEN_ERRORS.decode(answer.content).error)[:200]
    except ValueError:
        return ""


def _is_kraken_busy(answer: httpx.Response) -> bool:
    error = _kraken_error(answer)
    return is_temporary_failure(answer) or "Rate limit" in error or "Too many requests" in error or "EService" in error
