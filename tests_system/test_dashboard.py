"""The dashboard in a real Chromium: values, alerts, connection states, layout; no request to another host."""

from __future__ import annotations

import re
from typing import Final

import pytest
from playwright.sync_api import Browser, Route, expect

from tests_system.served_market import FakeMarket, Served, open_page
from volspike.market import Mode

OVERFLOWING: Final = """
[...document.querySelectorAll("main *, header *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length
"""


def test_numbers_change(browser: Browser, served: Served) -> None:
    """A tick changes price, probability, spread and state; an unknown value is a dash and not zero."""
    with open_page(browser, served) as dashboard:
        served.tick(64_321.5, 0.137)
        dashboard.text("price", "64,321.50")
        dashboard.text("probability", "13.7 %")
        dashboard.text("verdict", "No alert")
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
        dashboard.text("verdict", "No alert")
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
        expect(chart).to_have_attribute("data-bars", re.compile("8.."))
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


def test_market_is_kept_while_the_server_refuses_it(browser: Browser, served: Served) -> None:
    """After an outage in which every request is refused, the page shows the market of its address again."""
    with open_page(browser, served, errors=("503",)) as dashboard:
        page = dashboard.page
        page.clock.install()
        page.goto(f"{served.url}/?product=ETH-USD")
        expect(page.locator("#product")).to_have_value("ETH-USD")
        refused: list[str] = []

        def refuse(route: Route) -> None:
            refused.append(route.request.url)
            route.fulfill(status=503)

        page.route("**/stream**", refuse, times=4)
        served.end_streams()
        while len(refused) < 4:
            page.clock.fast_forward(20_000)
        while page.locator("#link").get_attribute("data-state") != "simulated":
            page.clock.fast_forward(20_000)
        served.wait_for_readers()
        served.tick(3_456.78, 0.2, "ETH-USD")
        dashboard.text("price", "3,456.78")
        expect(page.locator("#product")).to_have_value("ETH-USD")


def test_unknown_market_of_a_bookmark_is_named(browser: Browser, served: Served) -> None:
    """The page says that the market of its address is not served, and shows another one."""
    with open_page(browser, served, errors=("404",)) as dashboard:
        page = dashboard.page
        page.goto(f"{served.url}/?product=DOGE-USD")
        dashboard.text("unknown", "DOGE-USD is not served here; choose a market of the list.")
        expect(page.locator("#product")).to_have_value("BTC-USD")
        assert "product=BTC-USD" in page.url
        page.locator("#product").select_option("ETH-USD")
        expect(page.locator("#unknown")).to_be_hidden()


def test_lost_updates_are_made_up_for(browser: Browser, served: Served) -> None:
    """After lost updates the page opens a new stream, which the second time waits for its minimum interval."""
    with open_page(browser, served) as dashboard:
        page = dashboard.page
        page.clock.install()
        page.goto(served.url)
        dashboard.text("verdict", "No alert")
        served.wait_for_readers()
        with page.expect_response("**/stream**"):
            served.publish("lost", {"lost": 1})
        served.tick(64_000.0, 0.1)
        dashboard.text("price", "64,000.00")
        served.publish("lost", {"lost": 2})
        served.publish("health", served.market.health())
        dashboard.text("health", "Updates lost by this page")
        for frames in (777, 888):  # the stream is not silent, for which it would be opened again too
            page.clock.fast_forward(11_000)
            served.publish("health", served.market.health() | {"frames": frames})
            dashboard.text("health", f"Frames{frames}")
        with page.expect_response("**/stream**", timeout=9_000):
            page.clock.fast_forward(9_000)


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
