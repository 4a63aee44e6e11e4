"""A market with fixed history, served with the real page, and the page in a real Chromium."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp, sin
from pathlib import Path
from typing import Any, Final, Self

import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from volspike.api.app import create_app
from volspike.api.server import listen
from volspike.config import ServingSettings
from volspike.errors import UsageError
from volspike.live.stream import Publisher
from volspike.live.up import dashboard_routes
from volspike.market import Mode
from volspike.models import TEN_FEATURES

FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PRODUCTS: Final = ["BTC-USD", "ETH-USD"]
START: Final = 1_765_000_000_000  # ms
PAST_S: Final = 840
THRESHOLD: Final = 0.48
INTERVAL: Final = {"pr_auc": 0.312, "pr_auc_low": 0.241, "pr_auc_high": 0.395, "base_rate": 0.101}
GAIN: Final = {"pr_auc_gain": 0.031, "pr_auc_gain_low": -0.022, "pr_auc_gain_high": 0.084}
BASELINE: Final = {"pr_auc": 0.281, "pr_auc_low": 0.205, "pr_auc_high": 0.366, "base_rate": 0.101}
CALM: Final = {"ratio": 1.42, "ratio_low": 1.1, "ratio_high": 1.8}
BUDGET: Final = {"recall_model": 0.31, "recall_baseline": 0.12}
FIGURES: Final = {
    "model": INTERVAL | GAIN,
    "persistence": BASELINE,
    "calm": CALM,
    "minutes_30_per_day": BUDGET,
}
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
STEPS_MS: Final = [1000 * step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)]
BAR_COLUMNS: Final = ("time", "open", "high", "low", "close", "spread_bps", "probability", "threshold", "expected_bp")
EXPLANATION: Final = {
    "product": "BTC-USD",
    "horizon_s": 60,
    "bins": [
        {"low": 0.05, "high": 0.1, "minutes": 200, "spikes": 9},
        {"low": 0.1, "high": 0.15, "minutes": 187, "spikes": 23},
        {"low": 0.15, "high": 0.2, "minutes": 0, "spikes": 0},
    ],
}


class FakeMarket:
    """A live source with a fixed history; a test sends the present."""

    def __init__(self, mode: Mode = Mode.SIMULATED, *, past_s: int = PAST_S) -> None:
        self.publisher = Publisher()
        self.mode = mode
        self.is_ended = False
        self.now = START + 1000 * past_s
        self.started = 1000 * int(time.time())  # today, like a tape that is replayed now
        self.alerts = [self.alert(PRODUCTS[0], "a1", "closed", START + 400_000, START + 470_000, 0.71)]
        self.points = {name: self._past(name, past_s) for name in PRODUCTS}
        self.requests: list[dict[str, str]] = []
        self.snoozes: list[dict[str, Any]] = []

    def _past(self, product: str, seconds: int) -> list[dict[str, Any]]:
        """A random walk with one volatile period in its middle, which the probability follows a little late."""
        noise = random.Random(product)  # noqa: S311  no secret
        price = 64_000.0 if product == "BTC-USD" else 3_100.0
        points = []
        for second in range(seconds):
            burst = exp(-(((second - 450) / 40) ** 2)) + 0.3 * exp(-(((second - 150) / 25) ** 2))
            price *= exp(noise.gauss(0, 2e-5 + 2.4e-4 * burst))
            chance = 0.08 + 0.06 * sin(second / 37) + 0.62 * burst + noise.gauss(0, 0.012)
            points.append(self.row(product, START + 1000 * second, price, min(max(chance, 0.01), 0.97), noise))
        return points

    def row(self, product: str, time: int, price: float, chance: float | None, noise: random.Random) -> dict[str, Any]:
        spread = price * 4e-6 * noise.uniform(0.5, 2.5)
        features = {
            name: noise.gauss(1, 0.1) * (1e-4 if "vol" in name or "return" in name else 1) for name in TEN_FEATURES
        }
        quote = {"price": price, "best_bid": price - spread / 2, "best_ask": price + spread / 2, "spread": spread}
        known = {"is_warm": chance is not None, "is_whole": True, "features": features}
        score = {"probability": chance, "threshold": THRESHOLD, "spread_bps": 1e4 * spread / price}
        score |= {"expected_volatility_bp": 4.0, "volatility_low_bp": 2.0, "volatility_high_bp": 9.0}
        return {"product": product, "time": time, "received": time + 31, **quote, **score, **known}

    def alert(
        self, product: str, name: str, state: str, opened: int, closed: int | None, peak: float
    ) -> dict[str, Any]:
        times = {"opened": opened, "closed": closed}
        return {
            "product": product,
            "id": name,
            "state": state,
            **times,
            "peak_probability": peak,
            "threshold": THRESHOLD,
        }

    def history(self, product: str, start: int, end: int, points: int) -> dict[str, Any]:
        """Bars of two days before the points, and of the points; with an alert, a spike and a gap on each day."""
        step = next(each for each in STEPS_MS if (end - start) / each <= points)
        earliest = START - 2 * DAY_MS
        known = {1000 * (point["time"] // 1000): point for point in self.points[product]}
        times = range(-(-max(start, earliest) // step) * step, min(end, self.now + 1), step)
        base = self.points[product][0]["price"]
        bars = []
        for time_ms in times:
            if time_ms in known:
                price, chance = known[time_ms]["price"], known[time_ms]["probability"]
            elif (time_ms - earliest) % DAY_MS < HOUR_MS:
                continue  # no data in the first hour of each day
            else:
                price, chance = base * (1 + 0.01 * sin((START - time_ms) / 3e6)), 0.05
            bars.append((time_ms, price, price * 1.0002, price * 0.9998, price, 1.2, chance, THRESHOLD, 4.0))
        columns = {name: [bar[i] for bar in bars] for i, name in enumerate(BAR_COLUMNS)}
        day = START - DAY_MS + 12 * HOUR_MS
        alert = self.alert(product, "old", "closed", day, day + 60_000, 0.66) | {"outcome": "hit", "lead_s": 21.0}
        gaps = [{"start": START - DAY_MS, "end": START - DAY_MS + HOUR_MS, "cause": "disconnected"}]
        rows = {"first": day - 39_000, "last": day + 80_000}
        spikes = [rows | {"start": day + 21_000, "end": day + 80_000, "peak_bp": 12.5}]
        extent = {"product": product, "from": start, "to": end, "step_ms": step, "earliest": earliest}
        return {**extent, **columns, "alerts": [alert], "spikes": spikes, "gaps": gaps}

    def markets(self) -> list[dict[str, Any]]:
        """The rows of the overview."""
        rows = []
        for product in PRODUCTS:
            spark = [point["price"] for point in self.points[product]][::15]
            state = {"state": "calm", "is_calibrated": True, "gaps": 0, "alerts": 1, "snoozed_until": None}
            chance = {"probability": 0.07, "threshold": THRESHOLD, "change_pct": 100 * (spark[-1] / spark[0] - 1)}
            name: dict[str, Any] = {
                "product": product,
                "venue": "coinbase",
                "price": spark[-1],
                "time": self.now,
                "spark": spark,
            }
            rows.append(name | chance | state)
        return rows

    def health(self) -> dict[str, Any]:
        counts = {"frames": 15_201, "ticks": 15_033, "malformed": 0, "gaps": 1, "reconnects": 1}
        times = {"latency_ms": {"p50": 31.4, "p99": 88.0}, "score_us": {"p50": 41.0, "p99": 133.0}}
        recorder = {"is_recording": True, "recorder_fault": None, "last_received": self.now, "started": self.started}
        replay = self.replay() if self.mode.is_replay else None
        source = {"is_connected": True, "reason": "", "source": "simulator", "mode": self.mode, "replay": replay}
        return source | times | counts | recorder

    def replay(self) -> dict[str, Any]:
        progress = {"is_ended": self.is_ended, "fraction": 1.0 if self.is_ended else 0.4, "speed": 2.0}
        return progress | {"start": START, "now": self.now, "sessions": 2, "skipped_s": 7200}

    def performance(self, product: str | None = None) -> dict[str, Any]:
        figures = {"precision": 0.42, "recall": None, "brier": 0.081, "pr_auc": None, "base_rate": 0.09}
        return {"product": product, "rows": 2210, **figures, "alerts": 1, "since": START}

    def model(self) -> dict[str, Any]:
        about = {"name": "random_forest", "version": "2025-12-06", "threshold_name": "best_f1", "profile": "ticker"}
        learned = {
            "every": "tick",
            "tau": 8.7e-5,
            "trained_from": "2025-12-01",
            "trained_until": "2025-12-06T03:34:27Z",
            "metrics": FIGURES,
        }
        return {"threshold": THRESHOLD, "simulated": self.mode.is_simulated, **about, **learned}

    def snapshot(self, product: str | None) -> dict[str, Any]:
        product = product or PRODUCTS[0]
        if product not in PRODUCTS:
            raise UsageError(f"{product!r} is not watched")
        spikes = [
            {"product": product, "time": START + 1000 * s, "future_volatility": 2e-4, "tau": 8.7e-5}
            for s in range(405, 470)
        ]
        market = {"source": "simulator", "simulated": self.mode.is_simulated, "products": PRODUCTS, "product": product}
        market |= {"mode": self.mode, "warm_up": {"seconds": 0, "missing": []}}
        past: dict[str, Any] = {"points": self.points[product], "alerts": self.alerts, "spikes": spikes}
        past |= {"history_from": START - 2 * DAY_MS, "counts": {"alerts": 22, "spikes": 31}}
        market |= {"markets": self.markets(), "explanation": EXPLANATION, "snoozes": self.snoozes}
        return {**market, "model": self.model(), **past, "health": self.health(), "performance": self.performance()}


class Served:
    """A market served by a thread on a free loopback port."""

    def __init__(self, market: FakeMarket) -> None:
        self.market = market
        self.socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        pages = dashboard_routes(market.publisher, market.snapshot)
        pages.add_route("/history", self._history, methods=["GET"])
        pages.add_route("/alerts/snooze", self._snooze, methods=["POST", "DELETE"])
        app = create_app(ServingSettings(model=Path("missing")), pages=pages)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    async def _history(self, request: Request) -> Response:
        query = request.query_params
        if query["product"] not in PRODUCTS:
            return JSONResponse({"detail": "unknown product"}, 404)
        if "from" not in query:  # only whether there is such a product
            return JSONResponse({})
        self.market.requests.append(dict(query))
        start, end, points = (int(query[name]) for name in ("from", "to", "points"))
        return JSONResponse(self.market.history(query["product"], start, end, points))

    async def _snooze(self, request: Request) -> Response:
        if request.method == "POST":
            asked = await request.json()
            until = 1000 * int(time.time()) + 60_000 * asked["minutes"]
            self.market.snoozes = [{"product": asked["product"], "until": until}]
        else:
            self.market.snoozes = []
        return JSONResponse({"snoozes": self.market.snoozes})

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self.socket]))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_streams()
        self._server.should_exit = True
        self._thread.join(timeout=30)
        self.socket.close()

    def publish(self, event: str, data: dict[str, Any]) -> None:
        arguments = event, json.dumps(data).encode(), data.get("product")
        self._loop.call_soon_threadsafe(self.market.publisher.publish, *arguments)

    def tick(self, price: float, chance: float | None, product: str = PRODUCTS[0], **changes: Any) -> None:
        self.market.now += 1000
        row = self.market.row(product, self.market.now, price, chance, random.Random(self.market.now))  # noqa: S311
        self.publish("tick", row | changes)

    def end_streams(self) -> None:
        self._loop.call_soon_threadsafe(self.market.publisher.close)

    def wait_for_readers(self, readers: int = 1) -> None:
        """Waits until so many readers have subscribed."""
        deadline = time.monotonic() + 20
        while self.market.publisher.readers != readers:
            assert time.monotonic() < deadline, f"{self.market.publisher.readers} readers, not {readers}"
            threading.Event().wait(0.01)


class OpenPage:
    """A page, its errors and warnings, and the addresses it has requested."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requested: set[str] = set()
        page.on("console", lambda line: self.errors.append(line.text) if line.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requested.add(request.url))

    def text(self, name: str, expected: str) -> None:
        expect(self.page.locator(f"#{name}")).to_contain_text(expected)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "no chromium: run sh tests_system/install_chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, served: Served, *, errors: tuple[str, ...] = (), **context: Any) -> Iterator[OpenPage]:
    """The page of the market; at the end of the block it must have had no request to another host, and no error.

    ``errors`` are texts of errors that the test causes.
    """
    with browser.new_context(**context) as opened:
        dashboard = OpenPage(opened.new_page())
        dashboard.page.goto(served.url)
        dashboard.page.wait_for_url("**/?product=*")
        expect(dashboard.page.locator("#link")).to_have_attribute("data-state", served.market.mode)
        served.wait_for_readers()
        yield dashboard
    assert [text for text in dashboard.errors if not any(each in text for each in errors)] == []
    assert dashboard.requested
    assert all(url.startswith(served.url) for url in dashboard.requested)
