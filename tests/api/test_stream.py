"""``/stream`` and the dashboard's files over a source that a test plays: order, filters, limits, leaving, stalling."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from volspike.api.app import create_app
from volspike.api.dashboard import dashboard_assets
from volspike.api.stream import QUEUE_EVENTS, EventStream, Publisher, Readers, Subscription, Wish
from volspike.config import ServingSettings
from volspike.errors import UsageError

PRODUCTS = ["BTC-USD", "ETH-USD"]


class Played:
    """A live source that tells what a test says."""

    def __init__(self) -> None:
        self.publisher = Publisher()

    def snapshot(self, product: str | None) -> dict[str, Any]:
        if product not in {None, *PRODUCTS}:
            raise UsageError(f"{product!r} is not watched; these are: {', '.join(PRODUCTS)}")
        return {"product": product or PRODUCTS[0], "products": PRODUCTS, "points": [], "probability": float("nan")}

    def subscribe(self) -> Subscription:
        return self.publisher.subscribe()

    def tell(self, event: str, **data: Any) -> None:
        self.publisher.publish(event, json.dumps(data).encode())


class Reader:
    """One reader at the application's own interface, which takes an answer only as fast as a test lets it."""

    def __init__(self, app: Callable[..., Coroutine[Any, Any, None]], path: str = "/stream", query: str = "") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.ended = False
        self.may_take = asyncio.Event()
        self.may_take.set()
        self._left = asyncio.Event()
        self._came = asyncio.Condition()
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": ""}
        more = {"query_string": query.encode(), "headers": [], "http_version": "1.1", "scheme": "http"}
        self.task = asyncio.create_task(app(scope | more | {"server": ("volspike", 80)}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.may_take.wait()
        async with self._came:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.text += message["body"].decode()
                self.ended = not message.get("more_body", False)
            self._came.notify_all()

    async def until(self, text: str) -> None:
        """Waits until ``text`` has come."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: text in self.text)

    async def end(self) -> None:
        """Waits until the answer is over."""
        async with asyncio.timeout(10):
            await self.task

    async def leave(self) -> None:
        self._left.set()
        await self.end()

    @property
    def events(self) -> list[tuple[str, Any]]:
        found = re.findall(r"^event: (.+)\ndata: (.+)\n\n", self.text, re.MULTILINE)
        return [(event, json.loads(data)) for event, data in found]


@asynccontextmanager
async def watched(**limits: Any) -> AsyncIterator[tuple[FastAPI, Played]]:
    """An application over a played source; nobody may be left watching in the end."""
    source = Played()
    app = create_app(ServingSettings(), live=source)
    for name, value in limits.items():
        setattr(app.state.readers, name, value)
    yield app, source
    assert source.publisher.readers == 0
    assert app.state.readers.open == 0


def test_events_come_in_order_after_a_snapshot() -> None:
    """A reader gets the snapshot first and then every event in its order; unknown numbers are null."""

    async def run() -> None:
        async with watched() as (app, source):
            reader = Reader(app)
            await reader.until("event: snapshot")
            for price in range(20):
                source.tell("tick", product=PRODUCTS[price % 2], price=price)
            source.tell("health", frames=1)
            await reader.until("event: health")
            (name, snapshot), *rest = reader.events
            assert (name, snapshot["product"], snapshot["probability"]) == ("snapshot", "BTC-USD", None)
            assert [data["price"] for _, data in rest[:-1]] == list(range(20))
            assert reader.text.startswith("retry: ")
            await reader.leave()

    asyncio.run(run())


def test_headers_keep_proxies_from_holding_events_back() -> None:
    """The answer is an event stream that is neither cached nor buffered."""

    async def run() -> None:
        async with watched() as (app, _):
            reader = Reader(app)
            await reader.until("event: snapshot")
            assert reader.status == 200
            assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert reader.headers["x-accel-buffering"] == "no"
            assert "no-cache" in reader.headers["cache-control"]
            assert "x-correlation-id" in reader.headers
            await reader.leave()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["BTC-USD", "ETH-USD", "alert ETH-USD", None, None]),
        ("product=BTC-USD", ["BTC-USD", None, None]),
        ("product=ETH-USD", ["ETH-USD", "alert ETH-USD", None, None]),
        ("product=BTC-USD&alerts=all", ["BTC-USD", "alert ETH-USD", None, None]),
    ],
)
def test_products_are_filtered(query: str, expected: list[str | None]) -> None:
    """A reader of one product gets its events and those of none; with ``alerts=all`` every product's alerts."""

    async def run() -> None:
        async with watched() as (app, source):
            reader = Reader(app, query=query)
            await reader.until("event: snapshot")
            for product in PRODUCTS:
                source.tell("tick", product=product)
            source.tell("alert", product="ETH-USD", id=1)
            source.tell("performance", product=None)
            source.tell("health", frames=1)
            await reader.until("event: health")
            told = [
                f"alert {data['product']}" if event == "alert" else data.get("product")
                for event, data in reader.events[1:]
            ]
            assert told == expected
            await reader.leave()

    asyncio.run(run())


def test_an_unknown_product_is_refused() -> None:
    """A product that is not watched is 404 with a sentence, and takes no place."""

    async def run() -> None:
        async with watched() as (app, _):
            reader = Reader(app, query="product=DOGE-USD")
            await reader.end()
            assert reader.status == 404
            assert json.loads(reader.text)["detail"].startswith("'DOGE-USD' is not watched")

    asyncio.run(run())


def test_a_slow_reader_loses_the_oldest_and_is_told() -> None:
    """While one reader takes nothing its oldest events are dropped and counted; another misses none."""

    async def run() -> None:
        async with watched() as (app, source):
            slow, quick = Reader(app), Reader(app)
            await asyncio.gather(slow.until("event: snapshot"), quick.until("event: snapshot"))
            slow.may_take.clear()
            for number in range(QUEUE_EVENTS + 50):
                source.tell("tick", number=number)
                await quick.until(f'"number": {number}}}')
            slow.may_take.set()
            await slow.until(f'"number": {QUEUE_EVENTS + 49}}}')
            numbers = [data["number"] for event, data in slow.events if event == "tick"]
            assert numbers == sorted(numbers)
            (lost,) = [data["lost"] for event, data in slow.events if event == "lost"]
            assert lost + len(numbers) == QUEUE_EVENTS + 50
            assert lost >= 49
            assert [data["number"] for event, data in quick.events if event == "tick"] == list(range(QUEUE_EVENTS + 50))
            await asyncio.gather(slow.leave(), quick.leave())
            assert app.state.readers.lost == lost

    asyncio.run(run())


def test_a_reader_too_many_is_refused_until_one_leaves() -> None:
    """At the limit a further reader gets 503 and when to come back; a place that is left is free again."""

    async def run() -> None:
        async with watched(limit=2) as (app, _):
            first, second = Reader(app), Reader(app)
            await asyncio.gather(first.until("snapshot"), second.until("snapshot"))
            third = Reader(app)
            await third.end()
            assert third.status == 503
            assert int(third.headers["retry-after"]) > 0
            assert json.loads(third.text)["detail"].startswith("2 readers are watching")
            await first.leave()
            fourth = Reader(app)
            await fourth.until("snapshot")
            assert fourth.status == 200
            await asyncio.gather(second.leave(), fourth.leave())

    asyncio.run(run())


def test_silence_is_filled_with_heartbeats() -> None:
    """Comments keep the connection alive while nothing happens."""

    async def run() -> None:
        async with watched(heartbeat_s=0.01) as (app, _):
            reader = Reader(app)
            await reader.until(": heartbeat\n\n: heartbeat\n\n")
            await reader.leave()

    asyncio.run(run())


def test_a_reader_that_stalls_is_let_go() -> None:
    """A reader that takes nothing at all gives its place back, though its connection stands."""

    async def run() -> None:
        async with watched(stalled_s=0.05) as (app, source):
            reader = Reader(app)
            await reader.until("snapshot")
            reader.may_take.clear()
            source.tell("tick", number=1)
            await reader.end()
            assert not reader.ended

    asyncio.run(run())


def test_a_connection_that_breaks_is_no_fault() -> None:
    """A server that raises on a lost connection ends the stream quietly, with its place free."""

    async def run() -> None:
        source = Played()
        readers = Readers(source)
        broken = False

        async def send(message: Any) -> None:
            nonlocal broken
            broken = b"tick" in message.get("body", b"")
            if broken:
                raise ConnectionResetError

        async def receive() -> Any:
            await asyncio.Event().wait()

        task = asyncio.create_task(EventStream(readers, Wish())({"type": "http"}, receive, send))
        while source.publisher.readers == 0:
            await asyncio.sleep(0)
        source.tell("tick", number=1)
        async with asyncio.timeout(10):
            await task
        assert broken
        assert (readers.open, source.publisher.readers) == (0, 0)

    asyncio.run(run())


def test_the_stream_ends_with_its_source() -> None:
    """When the source closes, readers get what was told before and a proper end."""

    async def run() -> None:
        async with watched() as (app, source):
            reader = Reader(app)
            await reader.until("snapshot")
            source.tell("tick", number=1)
            source.publisher.close()
            await reader.end()
            assert reader.ended
            assert reader.events[-1] == ("tick", {"number": 1})

    asyncio.run(run())


def test_streams_end_when_the_server_stops() -> None:
    """Closing the readers ends every stream properly, so that a server need not wait for them."""

    async def run() -> None:
        async with watched() as (app, _):
            readers = [Reader(app) for _ in range(3)]
            await asyncio.gather(*(reader.until("snapshot") for reader in readers))
            assert app.state.readers.open == 3
            app.state.readers.close()
            await asyncio.gather(*(reader.end() for reader in readers))
            assert all(reader.ended for reader in readers)

    asyncio.run(run())


def test_without_a_live_source_there_is_a_plain_page(client: Any) -> None:
    """Nothing is streamed where nothing is live, and ``/`` needs no script."""
    assert client.get("/stream").status_code == 404
    assert client.get("/static/dashboard.js").status_code == 404
    assert "<script" not in client.get("/").text


@pytest.fixture
def live(new_client: Any) -> Any:
    with new_client(create_app(ServingSettings(), live=Played())) as client:
        yield client


def test_the_page_asks_for_nothing_from_elsewhere(live: Any) -> None:
    """Its policy allows this origin's own files alone, nothing inline, and every file it names is here."""
    page = live.get("/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["content-type"].startswith("text/html")
    text = page.text
    assert not re.findall(r"\son\w+=|style=|<script>|<style", text)
    named = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', text))
    scripts = {path: asset.body.decode() for path, asset in dashboard_assets().items() if path.endswith(".js")}
    for script in scripts.values():
        named |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', script)}
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|\beval\(", script)
    assert named == set(dashboard_assets()) - {"/"}
    for path in named:
        answer = live.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_are_sent_once_and_small(live: Any) -> None:
    """A file is compressed where the client can read that, and not sent again while it is the same."""
    plain = live.get("/static/chart.js", headers={"accept-encoding": "identity"})
    packed = live.get("/static/chart.js", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert "content-encoding" not in plain.headers
    again = live.get("/static/chart.js", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert live.metric('http_requests_total{endpoint="/static/chart.js",method="GET",status="304"}') == 1


def test_the_page_is_light() -> None:
    """All files together are under 25 kB on the wire."""
    assets = dashboard_assets().values()
    assert sum(len(asset.packed) for asset in assets) < 25_000
    assert all(gzip.decompress(asset.packed) == asset.body for asset in assets)


def test_the_stream_is_documented(live: Any) -> None:
    """The OpenAPI document tells the stream's parameters and refusals."""
    operation = live.get("/openapi.json").json()["paths"]["/stream"]["get"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["X-Correlation-ID", "product", "alerts"]
    assert set(operation["responses"]) == {"200", "401", "404", "503"}
    assert "/stream" in live.get("/docs").text


def test_many_readers_over_http() -> None:
    """Twenty readers get the same events, and their places are free once they have left."""

    async def read(http: httpx.AsyncClient) -> str:
        return (await http.get("/stream")).text

    async def run() -> list[str]:
        source = Played()
        app = create_app(ServingSettings(), live=source)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://volspike") as http:
            reading = [asyncio.create_task(read(http)) for _ in range(20)]
            while source.publisher.readers < 20:
                await asyncio.sleep(0)
            source.tell("tick", number=1)
            source.publisher.close()
            return await asyncio.gather(*reading)

    texts = asyncio.run(run())
    assert len(set(texts)) == 1
    assert 'data: {"number": 1}' in texts[0]
