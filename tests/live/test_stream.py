"""``/stream`` and the dashboard's files: order, filters, limits, disconnects, stalled readers."""

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
from volspike.config import ServingSettings
from volspike.errors import UsageError
from volspike.live.chart import SCRIPT
from volspike.live.stream import QUEUE_EVENTS, EventFilter, EventStreamResponse, Publisher, StreamLimits
from volspike.live.up import dashboard_assets, dashboard_routes

PRODUCTS = ["BTC-USD", "ETH-USD"]


class FakePipeline:
    """A pipeline that publishes the events of a test."""

    def __init__(self) -> None:
        self.publisher = Publisher()

    def snapshot(self, product: str | None) -> dict[str, Any]:
        if product not in {None, *PRODUCTS}:
            raise UsageError(f"{product!r} is unknown; available: {', '.join(PRODUCTS)}")
        return {"product": product or PRODUCTS[0], "products": PRODUCTS, "points": [], "probability": float("nan")}

    def publish(self, event: str, **data: Any) -> None:
        self.publisher.publish(event, json.dumps(data).encode(), data.get("product"))

    def app(self, **limits: Any) -> FastAPI:
        pages = dashboard_routes(self.publisher, self.snapshot, StreamLimits(**limits))
        return create_app(ServingSettings(), pages=pages)


class Reader:
    """A reader at the ASGI interface that accepts data only while the test allows it."""

    def __init__(self, app: Callable[..., Coroutine[Any, Any, None]], path: str = "/stream", query: str = "") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.ended = False
        self.accepts = asyncio.Event()
        self.accepts.set()
        self._disconnected = asyncio.Event()
        self._changed = asyncio.Condition()
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": ""}
        more = {"query_string": query.encode(), "headers": [], "http_version": "1.1", "scheme": "http"}
        self.task = asyncio.create_task(app(scope | more | {"server": ("volspike", 80)}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.accepts.wait()
        async with self._changed:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.text += message["body"].decode()
                self.ended = not message.get("more_body", False)
            self._changed.notify_all()

    async def until(self, text: str) -> None:
        """Wait until ``text`` has arrived."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: text in self.text)

    async def end(self) -> None:
        """Wait until the response is complete."""
        async with asyncio.timeout(10):
            await self.task

    def leave(self) -> None:
        """Disconnect without waiting for the response."""
        self._disconnected.set()

    async def disconnect(self) -> None:
        self.leave()
        await self.end()

    @property
    def events(self) -> list[tuple[str, Any]]:
        found = re.findall(r"^event: (.+)\ndata: (.+)\n\n", self.text, re.MULTILINE)
        return [(event, json.loads(data)) for event, data in found]


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[tuple[FastAPI, FakePipeline]]:
    """An application with a fake pipeline; no reader may remain at the end."""
    source = FakePipeline()
    yield source.app(**limits), source
    assert source.publisher.readers == 0


def test_refreshed_reader_receives_a_snapshot_of_its_product() -> None:
    """After ``refresh``, a reader receives a new snapshot instead of the queued events, and what follows it."""

    async def run() -> None:
        async with serving() as (app, source):
            reader = Reader(app, query="product=ETH-USD")
            await reader.until("event: snapshot")
            reader.accepts.clear()
            for price in range(20):
                source.publish("tick", product="ETH-USD", price=price)
            await asyncio.sleep(0)  # the response waits with the first of them
            source.publisher.refresh()
            source.publish("tick", product="ETH-USD", price=20)
            reader.accepts.set()
            await reader.until('"price": 20')
            sent = [(name, data["product"], data.get("price")) for name, data in reader.events]
            tick, snapshot = ("tick", "ETH-USD"), ("snapshot", "ETH-USD", None)
            assert sent == [snapshot, (*tick, 0), snapshot, (*tick, 20)]
            await reader.disconnect()

    asyncio.run(run())


def test_events_follow_a_snapshot_in_order() -> None:
    """A reader receives a snapshot and then every event in order; unknown numbers are null."""

    async def run() -> None:
        async with serving() as (app, source):
            reader = Reader(app)
            await reader.until("event: snapshot")
            for price in range(20):
                source.publish("tick", product=PRODUCTS[price % 2], price=price)
            source.publish("health", frames=1)
            await reader.until("event: health")
            (name, snapshot), *rest = reader.events
            assert (name, snapshot["product"], snapshot["probability"]) == ("snapshot", "BTC-USD", None)
            assert [data["price"] for _, data in rest[:-1]] == list(range(20))
            assert reader.text.startswith("retry: ")
            await reader.disconnect()

    asyncio.run(run())


def test_headers_prevent_buffering_by_proxies() -> None:
    """The response is an event stream that is neither cached nor buffered."""

    async def run() -> None:
        async with serving() as (app, _):
            reader = Reader(app)
            await reader.until("event: snapshot")
            assert reader.status == 200
            assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert reader.headers["x-accel-buffering"] == "no"
            assert "no-cache" in reader.headers["cache-control"]
            assert "x-correlation-id" in reader.headers
            await reader.disconnect()

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
    """A reader of one product receives its events and those without one; with ``alerts=all`` also all alerts."""

    async def run() -> None:
        async with serving() as (app, source):
            reader = Reader(app, query=query)
            await reader.until("event: snapshot")
            for product in PRODUCTS:
                source.publish("tick", product=product)
            source.publish("alert", product="ETH-USD", id=1)
            source.publish("performance", product=None)
            source.publish("health", frames=1)
            await reader.until("event: health")
            received = [
                f"alert {data['product']}" if event == "alert" else data.get("product")
                for event, data in reader.events[1:]
            ]
            assert received == expected
            await reader.disconnect()

    asyncio.run(run())


def test_an_unknown_product_is_refused() -> None:
    """An unknown product is a 404 with a detail and does not count as a reader."""

    async def run() -> None:
        async with serving() as (app, _):
            reader = Reader(app, query="product=DOGE-USD")
            await reader.end()
            assert reader.status == 404
            assert json.loads(reader.text)["detail"].startswith("'DOGE-USD' is unknown")

    asyncio.run(run())


def test_a_slow_reader_loses_the_oldest_events() -> None:
    """The oldest events of a slow reader are dropped and counted, and reported to it; other readers lose none."""

    async def run() -> None:
        async with serving() as (app, source):
            slow, quick = Reader(app), Reader(app)
            await asyncio.gather(slow.until("event: snapshot"), quick.until("event: snapshot"))
            slow.accepts.clear()
            for number in range(QUEUE_EVENTS + 50):
                source.publish("tick", number=number)
                await quick.until(f'"number": {number}}}')
            slow.accepts.set()
            await slow.until(f'"number": {QUEUE_EVENTS + 49}}}')
            numbers = [data["number"] for event, data in slow.events if event == "tick"]
            assert numbers == sorted(numbers)
            (lost,) = [data["lost"] for event, data in slow.events if event == "lost"]
            assert lost + len(numbers) == QUEUE_EVENTS + 50
            assert lost >= 49
            assert [data["number"] for event, data in quick.events if event == "tick"] == list(range(QUEUE_EVENTS + 50))
            await asyncio.gather(slow.disconnect(), quick.disconnect())
            assert source.publisher.lost == lost

    asyncio.run(run())


def test_events_of_other_products_take_no_place_in_a_queue() -> None:
    """A slow reader of one product loses none of its events, whatever the others send."""

    async def run() -> None:
        async with serving() as (app, source):
            reader = Reader(app, query="product=ETH-USD")
            await reader.until("event: snapshot")
            reader.accepts.clear()
            source.publish("tick", product="ETH-USD", price=1)
            for price in range(2 * QUEUE_EVENTS):
                source.publish("tick", product="BTC-USD", price=price)
            source.publish("tick", product="ETH-USD", price=2)
            assert source.publisher.is_wanted("tick", "ETH-USD")
            assert not source.publisher.is_wanted("tick", "BTC-USD")
            assert source.publisher.is_wanted("health")
            reader.accepts.set()
            await reader.until('"price": 2')
            assert [(name, data.get("price")) for name, data in reader.events[1:]] == [("tick", 1), ("tick", 2)]
            await reader.disconnect()

    asyncio.run(run())


def test_a_full_queue_keeps_its_snapshot() -> None:
    """A reader that was too slow after a refresh receives one new snapshot, and has lost nothing."""

    async def run() -> None:
        async with serving() as (app, source):
            reader = Reader(app)
            await reader.until("event: snapshot")
            reader.accepts.clear()
            source.publish("health", frames=1)
            await asyncio.sleep(0)  # the response waits with it
            source.publisher.refresh()
            for number in range(QUEUE_EVENTS + 50):
                source.publish("tick", number=number)
            reader.accepts.set()
            await reader.until(f'"number": {QUEUE_EVENTS + 49}}}')
            names = [name for name, _ in reader.events]
            assert names[:3] == ["snapshot", "health", "snapshot"]
            assert set(names[3:]) == {"tick"}
            await reader.disconnect()
            assert source.publisher.lost == 0

    asyncio.run(run())


def test_readers_over_the_limit_are_rejected() -> None:
    """At the limit another reader is a 503 with Retry-After; after one disconnects, a new one is accepted."""

    async def run() -> None:
        async with serving(readers=2) as (app, _):
            first, second = Reader(app), Reader(app)
            await asyncio.gather(first.until("snapshot"), second.until("snapshot"))
            third = Reader(app)
            await third.end()
            assert third.status == 503
            assert int(third.headers["retry-after"]) > 0
            assert json.loads(third.text)["detail"].startswith("2 readers are connected")
            await first.disconnect()
            fourth = Reader(app)
            await fourth.until("snapshot")
            assert fourth.status == 200
            await asyncio.gather(second.disconnect(), fourth.disconnect())

    asyncio.run(run())


def test_heartbeats_fill_silence() -> None:
    """Comments keep the connection alive without events."""

    async def run() -> None:
        async with serving(heartbeat_s=0.01) as (app, _):
            reader = Reader(app)
            await reader.until(": heartbeat\n\n: heartbeat\n\n")
            await reader.disconnect()

    asyncio.run(run())


def test_a_stalled_reader_is_dropped() -> None:
    """A reader that accepts no data is dropped although its connection is open."""

    async def run() -> None:
        async with serving(stalled_s=0.05) as (app, source):
            reader = Reader(app)
            await reader.until("snapshot")
            reader.accepts.clear()
            source.publish("tick", number=1)
            await reader.end()
            assert not reader.ended

    asyncio.run(run())


def test_a_broken_connection_is_not_an_error() -> None:
    """If the server raises on a lost connection, the stream ends without an error and the reader is removed."""

    async def run() -> None:
        source = FakePipeline()
        stream = EventStreamResponse(source.publisher, source.snapshot, StreamLimits(), EventFilter())
        broken = False

        async def send(message: Any) -> None:
            nonlocal broken
            broken = b"tick" in message.get("body", b"")
            if broken:
                raise ConnectionResetError

        async def receive() -> Any:
            await asyncio.Event().wait()

        task = asyncio.create_task(stream({"type": "http"}, receive, send))
        while source.publisher.readers == 0:
            await asyncio.sleep(0)
        source.publish("tick", number=1)
        async with asyncio.timeout(10):
            await task
        assert broken
        assert source.publisher.readers == 0

    asyncio.run(run())


def test_the_stream_ends_with_its_source() -> None:
    """When the publisher closes, readers receive the queued events and a complete response."""

    async def run() -> None:
        async with serving() as (app, source):
            reader = Reader(app)
            await reader.until("snapshot")
            source.publish("tick", number=1)
            source.publisher.close()
            await reader.end()
            assert reader.ended
            assert reader.events[-1] == ("tick", {"number": 1})

    asyncio.run(run())


def test_streams_end_when_the_server_stops() -> None:
    """Closing the publisher completes every response, so that the server need not wait for them."""

    async def run() -> None:
        async with serving() as (app, source):
            readers = [Reader(app) for _ in range(3)]
            await asyncio.gather(*(reader.until("snapshot") for reader in readers))
            assert source.publisher.readers == 3
            source.publisher.close()
            await asyncio.gather(*(reader.end() for reader in readers))
            assert all(reader.ended for reader in readers)

    asyncio.run(run())


@pytest.fixture
def live(new_client: Any) -> Any:
    with new_client(FakePipeline().app()) as client:
        yield client


def test_the_page_loads_nothing_from_other_hosts(live: Any) -> None:
    """Its policy allows only files of this origin and nothing inline, and every file that it names exists."""
    page = live.get("/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert policy.count("unsafe") == 1
    assert "style-src 'self' 'unsafe-inline';" in policy
    assert page.headers["content-type"].startswith("text/html")
    text = page.text
    assert not re.findall(r"\son\w+=|style=|<script>|<style", text)
    named = {f"/{path}" for path in re.findall(r'(?:src|href)="(static/[^"]+)"', text)}
    scripts = {path: asset.body.decode() for path, asset in dashboard_assets().items() if path.endswith(".js")}
    bokeh = scripts.pop(f"/static/{SCRIPT}")
    assert len(bokeh) > 1_000_000
    for script in scripts.values():
        named |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', script)}
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|\beval\(", script)
    assert named == set(dashboard_assets()) - {"/"}
    for path in named:
        answer = live.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_are_compressed_and_cached(live: Any) -> None:
    """A file is compressed if the client accepts it, and not sent again while it is unchanged."""
    plain = live.get("/static/chart.js", headers={"accept-encoding": "identity"})
    compressed = live.get("/static/chart.js", headers={"accept-encoding": "gzip"})
    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.text == plain.text
    assert "content-encoding" not in plain.headers
    again = live.get("/static/chart.js", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert live.metric('http_requests_total{endpoint="/static/chart.js",method="GET",status="304"}') == 1


def test_the_page_is_small() -> None:
    """Compressed, our own files are under 35 kB, and Bokeh under 400 kB."""
    assets = dashboard_assets()
    sizes = {path: len(asset.compressed) for path, asset in assets.items()}
    assert sizes.pop(f"/static/{SCRIPT}") < 400_000
    assert sum(sizes.values()) < 35_000
    assert all(gzip.decompress(asset.compressed) == asset.body for asset in assets.values())


def test_the_chart_names_what_the_page_fills(live: Any) -> None:
    """The document of the chart has every model that the page's script looks up by name."""
    response = live.get("/static/chart.json")
    assert response.headers["content-type"] == "application/json"
    names = set(re.findall(r'"name": ?"([^"]+)"', response.text))
    source = dashboard_assets()["/static/chart.js"].body.decode()
    wanted = set(re.findall(r'#model\("([^"]+)"\)', source))
    assert wanted >= {"time", "bars", "candles", "alerts", "spikes", "gaps"}
    assert wanted <= names


def test_the_stream_is_documented(live: Any) -> None:
    """The OpenAPI document has the stream's parameters and errors."""
    operation = live.get("/openapi.json").json()["paths"]["/stream"]["get"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["X-Correlation-ID", "product", "alerts"]
    assert set(operation["responses"]) == {"200", "401", "404", "503"}
    assert "/stream" in live.get("/docs").text


def test_many_readers_over_http() -> None:
    """Twenty readers receive the same events."""

    async def read(http: httpx.AsyncClient) -> str:
        return (await http.get("/stream")).text

    async def run() -> list[str]:
        source = FakePipeline()
        app = source.app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            reading = [asyncio.create_task(read(http)) for _ in range(20)]
            while source.publisher.readers < 20:
                await asyncio.sleep(0)
            source.publish("tick", number=1)
            source.publisher.close()
            return await asyncio.gather(*reading)

    texts = asyncio.run(run())
    assert len(set(texts)) == 1
    assert 'data: {"number": 1}' in texts[0]
