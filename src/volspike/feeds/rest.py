"""Coinbase Exchange's public trades over REST: ``GET /products/{id}/trades?limit=…&after=…``.

Pages are newest first. ``after`` is a trade id and selects the trades before it, so any page can be requested directly
(https://docs.cdp.coinbase.com/exchange/rest-api/pagination). The ``side`` is the maker's
(https://docs.cdp.coinbase.com/api-reference/exchange-api/rest-api/products/get-product-trades).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from math import isnan
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar

import httpx
import msgspec

from volspike.errors import DataError, MalformedTick, UsageError
from volspike.feeds.connection import is_this_machine, retry_after_s
from volspike.feeds.messages import TAKER_OF_MAKER, decode_json, read_time, valid_price, valid_size, with_path_prefix
from volspike.market import Kind, Tick

REST_URL = "https://api.exchange.coinbase.com"
LONGEST_PAGE = 1000
"""Most trades on one page."""
REQUESTS_PER_SECOND = 8.0
"""Coinbase allows 10 per second and public address; the rest is left to other programs on the machine."""

_ATTEMPTS = 8
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_PRODUCT = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)+")


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
    if isnan(trade.size):
        raise MalformedTick("Expected a finite size of 0 or more, got nan", "$.size")
    when = read_time(trade.time, "$.time")
    return Tick(
        time=when,
        received=when,
        kind=Kind.TRADE,
        product_id=product_id,
        price=valid_price(trade.price, "$.price"),
        last_size=valid_size(trade.size, "$.size"),
        side=TAKER_OF_MAKER[trade.side],
        trade_id=trade.trade_id,
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


class TradesClient:
    """Downloads pages of trades, at most ``rate`` requests per second, with retries.

    Temporary failures (429, 5xx, timeouts, lost connections) are attempted up to 8 times, 0.5 s to 30 s apart or
    after the wait in ``Retry-After``. ``transport``, ``clock`` and ``sleep`` (in seconds) replace network and time.

        with TradesClient() as client:
            newest = client.trades("BTC-USD", limit=1)
    """

    def __init__(
        self,
        url: str = REST_URL,
        *,
        rate: float = REQUESTS_PER_SECOND,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0.0 < rate <= 1000.0:
            raise UsageError(f"the rate must be above 0 and at most 1000 requests per second, got {rate}")
        self.url = _base(url)
        self.requests = 0
        self._interval = 1.0 / rate
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._has_answered = False
        headers = {"accept": "application/json", "user-agent": "volspike"}
        self._http = http_client(httpx.Client, self.url, headers=headers, timeout=timeout_s, transport=transport)

    def trades(self, product_id: str, *, after: int | None = None, limit: int = LONGEST_PAGE) -> tuple[Tick, ...]:
        """The newest ``limit`` trades of a product with an id below ``after`` (None: of all), oldest first.

        Raises:
            UsageError: the product's name is invalid, or the exchange does not know it.
            MalformedTick: the page cannot be decoded, or contains trades that were not requested.
            DataError: the exchange is unreachable or refuses the request.
        """
        if not _PRODUCT.fullmatch(product_id):
            raise UsageError(f"invalid product {product_id!r}: product names look like BTC-USD")
        parameters = {"limit": limit} if after is None else {"limit": limit, "after": after}
        answer = self._answer(f"{self.url}/products/{product_id}/trades", parameters)
        if answer.status_code == 404:
            raise UsageError(f"the exchange at {self.url} has no product {product_id} ({_reason(answer)})")
        if answer.status_code != 200:
            raise DataError(f"{self.url} refuses trades of {product_id}: {answer.status_code} {_reason(answer)}")
        try:
            return _within(decode_trades(answer.content, product_id), after)
        except MalformedTick as fault:
            raise MalformedTick(
                f"a page of trades from {self.url} cannot be read: {fault.reason}", fault.path
            ) from fault

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _answer(self, address: str, parameters: dict[str, int]) -> httpx.Response:
        """The first answer that a retry would not improve."""
        for attempt in range(_ATTEMPTS):
            wait = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
            self._wait_for_turn()
            self.requests += 1
            try:
                answer = self._http.get(address, params=parameters)
            except httpx.UnsupportedProtocol as error:
                raise UsageError(f"{self.url} is not an http address") from error
            except httpx.RequestError as error:
                # Refused before the first answer: a wrong address or no network, and waiting helps neither.
                is_hopeless = isinstance(error, httpx.ConnectError) and not self._has_answered
                if is_hopeless or attempt == _ATTEMPTS - 1:
                    raise self._unreachable(error) from error
            else:
                self._has_answered = True
                if not _is_temporary(answer) or attempt == _ATTEMPTS - 1:
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


def _within(page: tuple[Tick, ...], after: int | None) -> tuple[Tick, ...]:
    """The page itself; a server that ignores ``after`` would send the same page for ever."""
    if after is not None and any(tick.trade_id >= after for tick in page):
        raise MalformedTick(f"Expected trades below {after}, got {max(tick.trade_id for tick in page)}")
    return page


def _base(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"invalid address {url!r}: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise UsageError(f"invalid address {url!r}: it must start with https:// and name a host")
    return url.rstrip("/")


def _is_temporary(answer: httpx.Response) -> bool:
    return answer.status_code == 429 or answer.status_code >= 500


def _reason(answer: httpx.Response) -> str:
    """The exchange's message for a refusal, or the HTTP reason phrase."""
    try:
        message = _REFUSAL.decode(answer.content).message
    except ValueError:
        message = ""
    return message[:200] or answer.reason_phrase
