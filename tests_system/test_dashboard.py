"""The dashboard in a real Chromium: values, alerts, connection states, layout; no request to another host."""

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

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
OVERFLOWING: Final = """
[...document.querySelectorAll("main *, header *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length
"""


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
        past = {"points": self.points[product], "alerts": self.alerts, "spikes": spikes}
        return {**market, "model": self.model(), **past, "health": self.health(), "performance": self.performance()}


class Served:
    """A market served by a thread on a free loopback port."""

    def __init__(self, market: FakeMarket) -> None:
        self.market = market
        self.socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        pages = dashboard_routes(market.publisher, market.snapshot)
        app = create_app(ServingSettings(model=Path("missing")), pages=pages)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

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
        self._loop.call_soon_threadsafe(self.market.publisher.publish, event, json.dumps(data).encode())

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium is not None, "no chromium: run sh tests_system/install_chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, served: Served, **context: Any) -> Iterator[OpenPage]:
    """The page of the market; at the end of the block it must have had no error and no request to another host."""
    with browser.new_context(**context) as opened:
        dashboard = OpenPage(opened.new_page())
        dashboard.page.goto(served.url)
        dashboard.page.wait_for_url("**/?product=*")
        expect(dashboard.page.locator("#link")).to_have_attribute("data-state", served.market.mode)
        served.wait_for_readers()
        yield dashboard
    assert dashboard.errors == []
    assert dashboard.requested
    assert all(url.startswith(served.url) for url in dashboard.requested)


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(FakeMarket()) as running:
        yield running


def test_numbers_change(browser: Browser, served: Served) -> None:
    """A tick changes price, probability, spread and state; an unknown value is a dash and not zero."""
    with open_page(browser, served) as dashboard:
        served.tick(64_321.5, 0.137)
        dashboard.text("price", "64,321.50")
        dashboard.text("probability", "13.7 %")
        dashboard.text("verdict", "Calm")
        served.tick(64_321.5, 0.137, spread_bps=0.0044)
        dashboard.text("spread-bps", "0.0044")
        served.tick(64_322.75, None, is_warm=False, spread_bps=None)
        dashboard.text("price", "64,322.75")
        dashboard.text("probability", "–")
        dashboard.text("spread-bps", "–")
        dashboard.text("verdict", "Warming up")
        missing = [{"inputs": ["spread_mean_300s", "log_return_300s"], "reason": "301 s are needed", "seconds": 217}]
        served.tick(64_322.75, None, is_warm=False, warm_up={"seconds": 217, "missing": missing})
        dashboard.text("verdict", "Warming up (217 s)")
        dashboard.text("verdict-more", "2 inputs: 301 s are needed")
        dashboard.text("missing", "2 inputs without a value: 301 s are needed, 3 min left")
        served.tick(64_323.0, 0.1, is_whole=False)
        dashboard.text("verdict", "Data loss")
        assert "64,323.00 BTC-USD" in dashboard.page.title()


def test_alert_is_shown_and_announced(browser: Browser, served: Served) -> None:
    """An alert is announced once and shown as open, and shown as closed at its end."""
    with open_page(browser, served) as dashboard:
        expect(dashboard.page.locator("#alerts li")).to_have_count(1)
        served.tick(64_400.0, 0.62)
        opened = served.market.now
        served.publish("alert", served.market.alert("BTC-USD", "a2", "open", opened, None, 0.62))
        dashboard.text("say", "Alert: BTC-USD, a spike is likely within 60 s, probability 62.0 %")
        expect(dashboard.page.locator("#say")).to_have_attribute("role", "alert")
        dashboard.text("verdict", "ALERT")
        expect(dashboard.page.locator("#alerts li[data-state=open]")).to_have_count(1)
        served.tick(64_402.0, 0.71)
        expect(dashboard.page.locator("#alerts li[data-state=open]")).to_contain_text("peak 71.0 %")
        dashboard.text("verdict-more", "peak 71.0 %")
        served.tick(64_401.0, 0.3)
        served.publish("alert", served.market.alert("BTC-USD", "a2", "closed", opened, opened + 9000, 0.66))
        dashboard.text("say", "The alert for BTC-USD has closed")
        dashboard.text("verdict", "Calm")
        expect(dashboard.page.locator("#alerts li")).to_have_count(2)


def test_product_can_be_changed(browser: Browser, served: Served) -> None:
    """The ticks of the selected product are shown, and the selection is part of the address."""
    with open_page(browser, served) as dashboard:
        dashboard.page.locator("#product").select_option("ETH-USD")
        dashboard.page.wait_for_url("**/?product=ETH-USD")
        served.wait_for_readers()
        served.tick(64_000.0, 0.9, "BTC-USD")
        served.tick(3_456.78, 0.2, "ETH-USD")
        dashboard.text("price", "3,456.78")
        dashboard.text("probability", "20.0 %")


def test_simulated_market_has_a_banner(browser: Browser, served: Served) -> None:
    """The banner is on the page and in its title, and stays visible when the page is scrolled."""
    with open_page(browser, served) as dashboard:
        banner = dashboard.page.locator("#mode")
        dashboard.text("link", "Simulated")
        expect(banner).to_contain_text("SIMULATED")
        dashboard.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(banner).to_be_in_viewport()
        expect(dashboard.page).to_have_title(
            "SIMULATED · " + dashboard.page.locator("#price").inner_text() + " BTC-USD · volspike"
        )


def test_real_market_has_no_banner(browser: Browser) -> None:
    """A real market has no banner, and only its pill says that it is live."""
    with Served(FakeMarket(Mode.LIVE)) as served, open_page(browser, served) as dashboard:
        expect(dashboard.page.locator("#price")).not_to_have_text("–")
        expect(dashboard.page.locator("#mode")).to_be_hidden()
        expect(dashboard.page.locator("#in-sample")).to_be_hidden()
        expect(dashboard.page.locator("#link-text")).to_have_text("Live")


@pytest.mark.parametrize("mode", [Mode.REPLAY, Mode.SIMULATED_REPLAY])
def test_replay_is_not_shown_as_live(browser: Browser, mode: Mode) -> None:
    """Banner, pill, title, alerts and chart name a replay and its day; its end is shown as such."""
    with Served(FakeMarket(mode)) as served, open_page(browser, served) as dashboard:
        dashboard.text("mode", f"{mode.label} A recorded tape of 2025-12-06")
        dashboard.text("link", "2025-12-06 06:00:39")
        assert "Live" not in dashboard.page.locator("#link").inner_text()
        assert dashboard.page.title().startswith(f"{mode.label} · ")
        expect(dashboard.page.locator("#alerts li")).to_contain_text(
            f"BTC-USD · 2025-12-06 05:53:20 – 05:54:30 · {mode.label}"
        )
        dashboard.text("health", "40 % read, speed ×2")
        dashboard.text("health", "2, 2 h 0 min between them skipped")
        dashboard.text("performance-note", "not stored")
        expect(dashboard.page.locator("#in-sample")).to_be_hidden()
        served.tick(64_000.0, 0.1, is_in_sample=True)
        dashboard.text("in-sample", "IN-SAMPLE The model's own data (2025-12-01 to 2025-12-06)")
        chart = dashboard.page.locator("#chart")
        chart.focus()
        chart.press("ArrowLeft")
        dashboard.text("readout", "2025-12-06 06:00")
        served.market.is_ended = True
        served.publish("health", served.market.health())
        expect(dashboard.page.locator("#link-text")).to_have_text("Replay ended")
        dashboard.text("verdict", "Replay ended")
        dashboard.text("verdict-more", "the tape ends at 2025-12-06 06:00:41")
        assert "ended" in dashboard.page.title()


def test_metrics_have_intervals_and_a_baseline(browser: Browser, served: Served) -> None:
    """The model is shown with its interval next to persistence; metrics without enough data are marked."""
    with open_page(browser, served) as dashboard:
        figures = dashboard.page.locator("#figures svg")
        expect(figures).to_have_attribute(
            "aria-label", "PR-AUC out of sample: model 0.312 (0.24 to 0.40), persistence 0.281 (0.20 to 0.37)"
        )
        dashboard.text("model-verdict", "not shown to be better than persistence")
        dashboard.text("model", "a SIMULATED market")
        dashboard.text("model", "×1.42 of persistence (1.10 to 1.80)")
        dashboard.text("model", "31.0 %; persistence 12.0 %")
        dashboard.text("performance", "42.0 %")
        dashboard.text("performance", "not enough yet")
        dashboard.text("health", "31.4 / 88.0 ms")
        served.publish("health", served.market.health() | {"latency_ms": {"p50": -3e5, "p99": -2e5}})
        dashboard.text("health", "not in real time")


def test_silence_is_shown(browser: Browser, served: Served) -> None:
    """Values that no longer change turn grey and show their age."""
    with open_page(browser, served) as dashboard:
        served.tick(64_000.0, 0.1)
        dashboard.text("price", "64,000.00")
        expect(dashboard.page.locator("#link")).to_have_attribute("data-state", "stale", timeout=20_000)
        dashboard.text("link", "s old")
        dashboard.text("verdict", "Stale")
        expect(dashboard.page.locator("body")).to_have_attribute("data-stale", "")
        served.tick(64_001.0, 0.1)
        expect(dashboard.page.locator("#link")).to_have_attribute("data-state", "simulated")


def test_closed_stream_is_reconnected(browser: Browser, served: Served) -> None:
    """If the server closes the stream, the page shows that, reconnects and continues."""
    with open_page(browser, served) as dashboard:
        served.end_streams()
        expect(dashboard.page.locator("#link")).to_have_attribute("data-state", "lost")
        expect(dashboard.page.locator("#link")).to_have_attribute("data-state", "simulated", timeout=20_000)
        served.wait_for_readers()
        served.tick(64_777.0, 0.1)
        dashboard.text("price", "64,777.00")


def test_chart_can_be_read_by_keyboard(browser: Browser, served: Served) -> None:
    """Arrow keys read the chart point by point as text."""
    with open_page(browser, served) as dashboard:
        chart = dashboard.page.locator("#chart")
        chart.focus()
        chart.press("ArrowLeft")
        dashboard.text("readout", "probability")
        first = dashboard.page.locator("#readout").inner_text()
        chart.press("ArrowLeft")
        expect(dashboard.page.locator("#readout")).not_to_have_text(first)


@pytest.mark.parametrize("width", [320, 360, 768, 1440])
def test_nothing_overflows(browser: Browser, width: int) -> None:
    """At each width, neither the page nor an element in it is wider than the screen."""
    market = FakeMarket(Mode.SIMULATED_REPLAY)
    with Served(market) as served, open_page(browser, served, viewport={"width": width, "height": 740}) as dashboard:
        served.publish("alert", served.market.alert("BTC-USD", "a2", "open", served.market.now, None, 0.62))
        served.tick(1_234_567.891, 0.62, is_in_sample=True)
        dashboard.text("price", "1,234,567.89")
        assert dashboard.page.evaluate("document.documentElement.scrollWidth") <= width
        assert dashboard.page.evaluate(OVERFLOWING) == 0
