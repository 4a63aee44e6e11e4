"""Public trades over REST by trade id: the interface ``TradePages``, and the client of Coinbase Exchange.

A page has the newest trades below a trade id, so any range of ids can be fetched directly, also the missing ones of a
gap. ``feeds.trade_pages`` has the clients of the other venues.

Coinbase: ``GET /products/{id}/trades?limit=…&after=…``. Pages are newest first. ``after`` is a trade id and selects the
trades before it (https://docs.cdp.coinbase.com/exchange/rest-api/pagination). The ``side`` is the maker's
(https://docs.cdp.coinbase.com/api-reference/exchange-api/rest-api/products/get-product-trades).
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import isnan
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import httpx
import msgspec

from volspike.errors import DataError, MalformedTick, UsageError
from volspike.feeds.connection import is_this_machine, retry_after_s
from volspike.feeds.messages import TAKER_OF_MAKER, decode_json, read_time, valid_price, valid_size, with_path_prefix
from volspike.market import Kind, Side, Tick
from volspike.market.product import COINBASE, split_product

REST_URL = "https://api.exchange.coinbase.com"
LONGEST_PAGE = 1000
"""Most trades on one page, at each of the venues."""
REQUESTS_PER_SECOND = 8.0
"""Coinbase allows 10 per second and public address; the rest is left to other programs on the machine."""

_ATTEMPTS = 8
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_PRODUCT = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)+")


class TradePosition(NamedTuple):
    """Id and time (ns UTC) of a trade."""

    trade_id: int
    time: int


class _Trade(msgspec.Struct, gc=False):
    time: str
    trade_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 2)]
    price: float
    size: float
    side: Literal["buy", "sell"]


class _Refusal(msgspec.Struct):
    message: str = ""


_PAGE = msgspec.json.Decoder(list[_Trade], strict=False)
_REFUSAL = msgspec.json.Decoder(_Refusal)


def decode_trades(body: bytes | str, product_id: str) -> tuple[Tick, ...]:
    """The trades of one page, oldest first, each with its taker's side.

    ``received`` equals ``time``: when the page was downloaded says nothing about the market.

    Raises:
        MalformedTick: the page does not have the documented shape; the path names the trade and field.
    """
    trades: list[Tick] = []
    page = decode_json(_PAGE, body)
    for i, trade in enumerate(page):
        try:
            trades.append(_tick(trade, product_id))
        except MalformedTick as fault:
            raise with_path_prefix(fault, f"$[{i}]") from fault
    return tuple(reversed(trades))


def _tick(trade: _Trade, product_id: str) -> Tick:
    when, side = read_time(trade.time, "$.time"), TAKER_OF_MAKER[trade.side]
    return trade_tick(product_id, trade.trade_id, when, trade.price, trade.size, side, "$.size")


def trade_tick(
    product_id: str, trade_id: int, time: int, price: float, size: float, side: Side, size_path: str
) -> Tick:
    """A trade as a tick, received when it was made; raises ``MalformedTick`` for an impossible price or size."""
    price_path = "$[0]" if size_path == "$[1]" else "$.price"
    if isnan(size):
        raise MalformedTick("Expected a finite size of 0 or more, got nan", size_path)
    return Tick(
        time=time,
        received=time,
        kind=Kind.TRADE,
        product_id=product_id,
        price=valid_price(price, price_path),
        last_size=valid_size(size, size_path),
        side=side,
        trade_id=trade_id,
    )


C = TypeVar("C", httpx.Client, httpx.AsyncClient)


def http_client(kind: type[C], url: str, **options: Any) -> C:
    """A client for ``url`` that uses the proxy of the environment, except for a server on this machine.

    Raises:
        UsageError: the proxy's address is invalid, or it needs a package that is not installed.
    """
    try:
        return kind(trust_env=not is_this_machine(httpx.URL(url).host), **options)
    except ImportError:
        raise UsageError(
            "the SOCKS proxy of the environment needs the package socksio: "
            "pip install socksio, or name an HTTP proxy in HTTPS_PROXY"
        ) from None
    except (ValueError, httpx.InvalidURL) as error:
        raise UsageError(
            f"the proxy of the environment is not usable ({' '.join(str(error).split())}); "
            "correct HTTPS_PROXY or ALL_PROXY, for example http://proxy.example:3128"
        ) from None


class RestConnection:
    """GET requests to one address, at most ``rate`` per second, with retries.

    Temporary failures (429, 5xx, timeouts, lost connections) are attempted up to 8 times, 0.5 s to 30 s apart or
    after the wait in ``Retry-After``. ``transport``, ``clock`` and ``sleep`` (in seconds) replace network and time.
    """

    def __init__(
        self,
        url: str,
        *,
        rate: float,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0.0 < rate <= 1000.0:
            raise UsageError(f"the rate must be above 0 and at most 1000 requests per second, got {rate}")
        self.url = checked_url(url)
        self.requests = 0
        self._interval = 1.0 / rate
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._has_answered = False
        headers = {"accept": "application/json", "user-agent": "volspike"}
        self._http = http_client(httpx.Client, self.url, headers=headers, timeout=timeout_s, transport=transport)

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        *,
        headers: Mapping[str, str] | None = None,
        is_temporary: Callable[[httpx.Response], bool] | None = None,
    ) -> httpx.Response:
        """The first answer that a retry would not improve; by default, any but 429 and 5xx.

        Raises:
            UsageError: the address is not one of http.
            DataError: the exchange is unreachable.
        """
        is_temporary = is_temporary or is_temporary_failure
        for attempt in range(_ATTEMPTS):
            wait = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
            self._wait_for_turn()
            self.requests += 1
            try:
                answer = self._http.get(self.url + path, params=parameters, headers=headers)
            except httpx.UnsupportedProtocol as error:
                raise UsageError(f"{self.url} is not an http address") from error
            except httpx.RequestError as error:
                # Refused before the first answer: a wrong address or no network, and waiting helps neither.
                is_hopeless = isinstance(error, httpx.ConnectError) and not self._has_answered
                if is_hopeless or attempt == _ATTEMPTS - 1:
                    raise self._unreachable(error) from error
            else:
                self._has_answered = True
                if not is_temporary(answer) or attempt == _ATTEMPTS - 1:
                    return answer
                wait = max(wait, retry_after_s(answer.headers.get("retry-after", "")))
            self._sleep(wait)
        raise AssertionError  # the last attempt returns or raises

    def _wait_for_turn(self) -> None:
        if (early := self._next - self._clock()) > 0.0:
            self._sleep(early)
        self._next = max(self._next, self._clock()) + self._interval

    def _unreachable(self, error: httpx.RequestError) -> DataError:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        return DataError(f"cannot reach {self.url} ({reason}): check the network and the address, then try again")


class TradePages(ABC):
    """A client for the past trades of one venue, in pages by trade id.

    By default it uses the venue's public address within its limit; the options are those of ``RestConnection``. The
    connection is closed with the context.
    """

    default_url: ClassVar[str]
    default_rate: ClassVar[float]

    def __init__(self, url: str | None = None, *, rate: float | None = None, **options: Any) -> None:
        rate = self.default_rate if rate is None else rate
        self._rest = RestConnection(self.default_url if url is None else url, rate=rate, **options)

    @property
    def url(self) -> str:
        """The address of the exchange."""
        return self._rest.url

    @property
    def requests(self) -> int:
        """The number of requests so far."""
        return self._rest.requests

    @abstractmethod
    def trades(self, product_id: str, *, after: int | None = None, limit: int = LONGEST_PAGE) -> tuple[Tick, ...]:
        """The newest ``limit`` trades, of those with an id below ``after`` if given, oldest first.

        Their ``product_id`` is canonical, ``received`` equals ``time``, and ``side`` is the taker's. There is no trade
        below ``after`` if the page is empty; it may be shorter than ``limit`` also otherwise.

        Raises:
            UsageError: the product's name is invalid, of another venue, or unknown to the exchange.
            MalformedTick: the page cannot be decoded, or contains trades that were not requested.
            DataError: the exchange is unreachable or refuses the request.
        """

    def trades_at(self, product_id: str, time: int) -> tuple[Tick, ...]:  # noqa: ARG002
        """Trades around ``time`` (ns UTC), where the venue finds trades by time; none where it does not.

        A search by time may begin with their ids.
        """
        return ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rest.close()

    def _decode(
        self, decode: Callable[[bytes, str], tuple[Tick, ...]], body: bytes, product_id: str
    ) -> tuple[Tick, ...]:
        try:
            return decode(body, product_id)
        except MalformedTick as fault:
            raise self._malformed(fault) from fault

    def _malformed(self, fault: MalformedTick) -> MalformedTick:
        return MalformedTick(f"a page of trades from {self.url} cannot be read: {fault.reason}", fault.path)

    def _refusal(self, product_id: str, answer: httpx.Response, reason: str) -> DataError:
        return DataError(f"{self.url} refuses trades of {product_id}: {answer.status_code} {reason}")

    def _unknown(self, product_id: str, reason: str) -> UsageError:
        return UsageError(f"the exchange at {self.url} has no product {product_id} ({reason})")


class TradesClient(TradePages):
    """Downloads pages of trades of Coinbase Exchange.

    with TradesClient() as client:
        newest = client.trades("BTC-USD", limit=1)
    """

    default_url = REST_URL
    default_rate = REQUESTS_PER_SECOND

    def trades(self, product_id: str, *, after: int | None = None, limit: int = LONGEST_PAGE) -> tuple[Tick, ...]:
        """As ``TradePages.trades``."""
        symbol = venue_symbol(product_id, COINBASE)
        parameters = {"limit": limit} if after is None else {"limit": limit, "after": after}
        answer = self._rest.get(f"/products/{symbol}/trades", parameters)
        if answer.status_code == 404:
            raise self._unknown(product_id, _reason(answer))
        if answer.status_code != 200:
            raise self._refusal(product_id, answer, _reason(answer))
        page = self._decode(decode_trades, answer.content, product_id)
        if after is not None and any(tick.trade_id >= after for tick in page):
            # a server that ignores `after` would send the same page for ever
            newest = max(tick.trade_id for tick in page)
            raise self._malformed(MalformedTick(f"Expected trades below {after}, got {newest}"))
        return page


def checked_url(url: str) -> str:
    """An address without the slash at its end.

    Raises:
        UsageError: it is not one of http.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"invalid address {url!r}: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise UsageError(f"invalid address {url!r}: it must start with https:// and name a host")
    return url.rstrip("/")


def venue_symbol(product_id: str, venue: str) -> str:
    """The symbol of a product of ``venue``; raises ``UsageError`` for any other product and for an invalid name."""
    named, symbol = split_product(product_id)
    if named != venue or not _PRODUCT.fullmatch(symbol):
        example = "BTC-USD" if venue == COINBASE else f"{venue}:BTC-USDT"
        raise UsageError(f"invalid product {product_id!r}: product names of {venue} look like {example}")
    return symbol


def is_temporary_failure(answer: httpx.Response) -> bool:
    """Whether the same request may succeed later."""
    return answer.status_code == 429 or answer.status_code >= 500


def _reason(answer: httpx.Response) -> str:
    """The exchange's message for a refusal, or the HTTP reason phrase."""
    try:
        message = _REFUSAL.decode(answer.content).message
    except ValueError:
        message = ""
    return message[:200] or answer.reason_phrase
