"""Products that the exchange refuses, and handshakes that it refuses for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.feeds.scripted import ScriptedExchange, closes, heard, of, run, says, settings, some, ticker
from volspike.config import FeedSettings
from volspike.feeds import refusals as refusals_module
from volspike.feeds.events import FeedError, FeedEvent, FeedFrame, FeedState
from volspike.feeds.refusals import RETRY_AFTER_S, Refusals
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.market import Cause, Gap

PAIRS = ("BTC-USD", "ETH-USD", "SOL-USD")
Change = Callable[[SimulatedExchange], None]


def has_ticks(*products: str) -> Callable[[list[FeedEvent]], bool]:
    return lambda events: set(products) <= products_of(events)


def products_of(events: Sequence[FeedEvent]) -> set[str]:
    return {tick.product_id for event in of(FeedFrame, events) for tick in event.frame.ticks}


def listen_to_market(
    protocol: str, change: Change, is_enough: Callable[[list[FeedEvent]], bool], **others: Any
) -> tuple[list[FeedEvent], FeedSession]:
    """Events of a session with a simulated exchange that runs ten times as fast as the clock."""

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        async with SimulatedExchange(SimulatedExchangeSettings(products=PAIRS, speed=10)) as exchange:
            change(exchange)
            options = {"products": PAIRS, "protocol": protocol, "idle_timeout_s": 5.0} | others
            session = FeedSession(settings(exchange.url(protocol), **options))
            return await heard(session, is_enough), session

    return run(whole())


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_rejected_product_is_named_and_the_others_are_received(protocol: str) -> None:
    """The exchange rejects the complete request; the session requests the others on the same connection."""

    def change(exchange: SimulatedExchange) -> None:
        exchange.faults.rejected["ETH-USD"] = True

    events, session = listen_to_market(protocol, change, has_ticks("BTC-USD", "SOL-USD"))
    error = of(FeedError, events)[0]
    assert error.products == ("ETH-USD",)
    assert "ETH-USD is not a valid product" in error.reason
    assert products_of(events) == {"BTC-USD", "SOL-USD"}
    assert session.stats.refused == ("ETH-USD",)
    assert session.stats.connections == 1


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_several_rejected_products_are_left_out_one_by_one(protocol: str) -> None:
    """Each error names one product; the last remaining one is received."""

    def change(exchange: SimulatedExchange) -> None:
        exchange.faults.rejected.update({"BTC-USD": True, "ETH-USD": True})

    events, session = listen_to_market(protocol, change, has_ticks("SOL-USD"))
    assert set(session.stats.refused) == {"BTC-USD", "ETH-USD"}
    assert products_of(events) == {"SOL-USD"}


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_unnamed_rejection_is_found_by_requesting_singly(protocol: str) -> None:
    """If the error names no product, each is requested by itself; the one without an answer is the rejected one."""

    def change(exchange: SimulatedExchange) -> None:
        exchange.faults.rejected["BTC-USD"] = False

    def is_enough(events: list[FeedEvent]) -> bool:
        return has_ticks("ETH-USD", "SOL-USD")(events) and any(error.products for error in of(FeedError, events))

    events, session = listen_to_market(protocol, change, is_enough, ack_timeout_s=0.5)
    assert "each product is requested by itself" in of(FeedError, events)[0].reason
    assert of(FeedError, events)[-1].products == ("BTC-USD",)
    assert session.stats.refused == ("BTC-USD",)


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_rejected_product_is_requested_again(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause the product is requested again; the time without it is a gap of that product."""
    monkeypatch.setattr(refusals_module, "RETRY_AFTER_S", 0.3)
    exchanges: list[SimulatedExchange] = []

    def change(exchange: SimulatedExchange) -> None:
        exchange.faults.rejected["ETH-USD"] = True
        exchanges.append(exchange)

    def is_enough(events: list[FeedEvent]) -> bool:
        if sum("ETH-USD" in error.products for error in of(FeedError, events)) >= 2:
            exchanges[0].faults.rejected.clear()
        return has_ticks(*PAIRS)(events)

    events, session = listen_to_market(protocol, change, is_enough)
    first = next(error for error in of(FeedError, events) if error.products)
    gap = next(gap for gap in of(Gap, events) if gap.detail == "the exchange refused the product")
    assert (gap.start, gap.products, gap.cause) == (first.received, ("ETH-USD",), Cause.RECONNECT)
    assert session.stats.refused == ()
    assert session.stats.connections == 1


def test_close_reason_that_names_a_product_refuses_it() -> None:
    """An exchange may close the connection instead of sending an error; the next one goes without the product."""
    refusal = closes(1008, "ETH-USD is delisted")
    exchange = ScriptedExchange(refusal, says(ticker(0)))

    async def whole() -> list[FeedEvent]:
        async with exchange:
            options = settings(exchange.url, products=("BTC-USD", "ETH-USD"), backoff_min_s=0.2, backoff_max_s=0.2)
            return await heard(FeedSession(options, jitter=lambda: 1.0), some(FeedFrame))

    events = run(whole())
    (error,) = of(FeedError, events)
    assert error.products == ("ETH-USD",)
    assert [message.get("product_ids") for message in exchange.asked[1]] == [["BTC-USD"], ["BTC-USD"], None]


def refusals(*products: str, now: float = 0.0) -> tuple[Refusals, list[float]]:
    clock = [now]
    return Refusals(products, lambda: clock[0]), clock


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ETH-USD is not a valid product", ("ETH-USD",)),
        ("ETH-USDC is not a valid product", ("ETH-USDC",)),
        ("XETH-USD and ETH-USD2", ()),
        ("invalid: ETH-USD,BTC-USD.", ("BTC-USD", "ETH-USD")),
        ("", ()),
    ],
)
def test_products_are_recognized_as_whole_names(text: str, named: tuple[str, ...]) -> None:
    """A name within another one does not count."""
    assert refusals("BTC-USD", "ETH-USD", "ETH-USDC")[0].named_in(text) == named


def test_all_products_refused_are_requested_with_the_next_connection() -> None:
    """A connection without any product is of no use, so all are requested; on the same connection nothing is."""
    state, clock = refusals("BTC-USD", "ETH-USD")
    assert state.refuse(("BTC-USD",), 5) == ("BTC-USD",)
    assert state.refuse(("BTC-USD", "ETH-USD"), 6) == ("ETH-USD",)
    assert state.accepted == ("BTC-USD", "ETH-USD")
    clock[0] = RETRY_AFTER_S - 1
    assert state._take_groups() == []
    clock[0] = RETRY_AFTER_S
    assert state._take_groups() == [("BTC-USD",), ("ETH-USD",)]
    assert state._take_groups() == []


@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
def test_retry_after_of_a_handshake_is_respected(status: HTTPStatus) -> None:
    """After a refused handshake the next attempt comes when the exchange allows it, and the state says so."""
    attempts: list[float] = []

    def refuse_first(connection: ServerConnection, _request: Request) -> Response | None:
        attempts.append(asyncio.get_running_loop().time())
        if len(attempts) > 1:
            return None
        response = connection.respond(status, "wait")
        response.headers["Retry-After"] = "1"
        return response

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(says(ticker(0)), process_request=refuse_first) as exchange:
            return await heard(FeedSession(settings(exchange.url)), some(FeedFrame))

    refused, connected = of(FeedState, run(whole()))
    assert refused.reason.endswith("the next attempt is in 1 s")
    assert connected.is_connected
    assert attempts[1] - attempts[0] >= 1.0


def test_simulated_exchange_refuses_handshakes() -> None:
    """The simulated exchange states how long a client has to wait."""

    async def whole() -> list[FeedEvent]:
        async with SimulatedExchange(SimulatedExchangeSettings()) as exchange:
            exchange.faults.retry_after_s = 7
            session = FeedSession(FeedSettings(url=exchange.url("coinbase")))
            return await heard(session, some(FeedState))

    (state,) = of(FeedState, run(whole()))
    assert "HTTP 429" in state.reason
    assert state.reason.endswith("the next attempt is in 7 s")
