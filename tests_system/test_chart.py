"""The chart, the overview and the alert list of the dashboard in a real Chromium, used as a person would."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests_system.served_market import (
    DAY_MS,
    HOUR_MS,
    START,
    FakeMarket,
    Served,
    open_page,
)
from volspike.live.history import HistoryRange
from volspike.market import Mode

NOTED: Final = """() => {
  window.notes = [];
  const Real = Notification;
  window.Notification = class extends Real {
    constructor(title, options) { super(title, options); window.notes.push([title, options.body]); }
  };
}"""
"""Records the notifications that the page makes, which headless Chromium shows nowhere."""

FAILING: Final = """() => {
  window.Notification = class {
    static permission = "granted";
    constructor() { throw new TypeError("Illegal constructor"); }
  };
}"""


class ChartPage:
    """The chart of an open page: its view, and the pointer over it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.element = page.locator("#chart")
        expect(self.element).to_have_attribute("data-bars", "840")
        self.element.scroll_into_view_if_needed()

    def value(self, name: str) -> Any:
        return self.page.evaluate(f"document.getElementById('chart').dataset.{name}")

    @property
    def span_ms(self) -> int:
        return int(self.value("end")) - int(self.value("start"))

    def place(self, share: float, height: float = 0.3) -> tuple[float, float]:
        """A point of the screen at a share of the plot's width and of the chart's height."""
        box = self.element.bounding_box()
        assert box is not None
        return box["x"] + share * (box["width"] - 78), box["y"] + height * box["height"]

    def point(self, share: float) -> None:
        self.page.mouse.move(*self.place(share))

    def point_at(self, time_ms: float) -> None:
        self.point((time_ms - int(self.value("start"))) / self.span_ms)

    def drag(self, start: float, end: float) -> None:
        self.point(start)
        self.page.mouse.down()
        self.page.mouse.move(*self.place(end), steps=4)
        self.page.mouse.up()

    def wait(self, condition: str) -> None:
        """Waits until a condition on ``d``, the data attributes of the chart as numbers, is true."""
        numbers = "Object.fromEntries(Object.entries(chart.dataset).map(([name, text]) => [name, Number(text)]))"
        self.page.wait_for_function(f"() => {{ const d = {numbers}; return {condition}; }}")

    def select_span(self, minutes: int) -> None:
        self.page.locator(f"input[name=span][value='{minutes}']").check(force=True)


def test_wheel_zooms_and_loads_the_past(browser: Browser, served: Served) -> None:
    """The wheel zooms out from minutes to days, for which longer bars are loaded, and back in to seconds."""
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        chart.point(0.5)
        dashboard.page.mouse.wheel(0, -200)
        chart.wait("d.end - d.start < 800000")
        for _ in range(8):
            dashboard.page.mouse.wheel(0, 2400)
        chart.wait(f"d.end - d.start > {6 * HOUR_MS} && d.step > 1000")
        assert served.market.requests
        span = chart.span_ms
        for _ in range(6):
            dashboard.page.mouse.wheel(0, -1200)
        chart.wait(f"d.end - d.start < {span / 8}")


def test_drag_moves_into_the_past_and_back(browser: Browser, served: Served) -> None:
    """Dragging moves the view and stops following; the button returns to the newest data and follows it again."""
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        start, span = int(chart.value("start")), chart.span_ms
        chart.drag(0.2, 0.8)
        chart.wait(f"d.start < {start - 0.4 * span}")
        assert chart.span_ms == pytest.approx(span, abs=5)
        assert chart.value("follows") == "false"
        moved = chart.value("end")
        served.tick(64_000.0, 0.1)
        dashboard.text("price", "64,000.00")
        assert chart.value("end") == moved
        dashboard.page.locator("#follow").click()
        expect(dashboard.page.locator("#follow")).to_be_hidden()
        chart.wait(f"d.end >= {served.market.now}")
        served.tick(64_001.0, 0.1)
        chart.wait(f"d.end >= {served.market.now}")


@pytest.mark.parametrize(("minutes", "step"), [(60, 5_000), (1440, 120_000), (10_080, 600_000)])
def test_spans_load_what_they_show(browser: Browser, served: Served, minutes: int, step: int) -> None:
    """A span of hours or days is one request of the view and half of it before, at the step that the server chooses."""
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        chart.select_span(minutes)
        chart.wait(f"d.step === {step}")
        assert chart.span_ms == 60_000 * minutes
        (request,) = served.market.requests
        assert int(request["from"]) <= int(chart.value("start")) - 29_000 * minutes
        served.tick(64_000.0, 0.1)
        chart.wait(f"d.end >= {served.market.now}")
        assert len(served.market.requests) == 1


def test_longest_view_is_one_request_that_the_server_accepts(browser: Browser, served: Served) -> None:
    """Zoomed out to 31 days, the page requests no more than the 31 days that one request may have."""
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        chart.select_span(10_080)
        chart.element.focus()
        for _ in range(3):
            chart.element.press("-")
        chart.wait(f"d.end - d.start >= {31 * DAY_MS - 1000} && d.step === 1800000")
        for request in served.market.requests:
            HistoryRange.of(request, served.market.now)


def test_times_are_round_across_a_change_of_the_clock(browser: Browser, served: Served) -> None:
    """In local time days begin at midnight, and their quarters at 6, 12 and 18 o'clock, also when the clock is set."""
    script = """async ([start, step, count]) => {
      const words = await import("/static/words.js");
      words.setLocal(true);
      const shown = [];
      for (let time = start; shown.length < count; time += 1) {
        time = words.nextRound(time, step);
        shown.push(words.clock(time).slice(0, 5));
      }
      return shown;
    }"""
    quarters = ["00:00", "06:00", "12:00", "18:00"]
    with open_page(browser, served, timezone_id="Europe/Berlin") as dashboard:
        for change in (1_743_296_400_000, 1_761_440_400_000):  # 30 March and 26 October 2025, 01:00 UTC
            before = change - 30 * HOUR_MS
            assert dashboard.page.evaluate(script, [before, DAY_MS, 4]) == ["00:00"] * 4
            shown = dashboard.page.evaluate(script, [before, 6 * HOUR_MS, 12])
            assert shown == (quarters * 4)[quarters.index(shown[0]) :][:12]
        repeated = dashboard.page.evaluate(script, [1_761_440_400_000 - HOUR_MS // 2, HOUR_MS // 2, 5])
        assert repeated == ["02:30", "02:00", "02:30", "03:00", "03:30"]


def test_chart_that_is_not_served_yet_is_requested_again(browser: Browser, served: Served) -> None:
    """While the server does not answer, the page says so and tries again; the numbers are shown meanwhile."""
    with browser.new_context() as context:
        page = context.new_page()
        page.clock.install()
        page.route("**/static/chart.json", lambda route: route.abort(), times=1)
        page.goto(served.url)
        expect(page.locator("#loading")).to_contain_text("The chart could not be loaded. Trying again…")
        expect(page.locator("#verdict")).to_have_text("No alert")
        page.clock.fast_forward(6_000)
        ChartPage(page)
        expect(page.locator("#loading")).to_be_empty()


def test_pointer_reads_values_and_events(browser: Browser, served: Served) -> None:
    """The crosshair reads time, price, spread, probability and threshold; bands state what happened in them."""
    served.market.alerts[0] |= {"outcome": "hit", "lead_s": 5.0}
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        point = served.market.points["BTC-USD"][300]
        chart.point_at(point["time"])
        dashboard.text("readout", "2025-12-06 05:51:")
        for text in ("spread", "bps", "probability", "(threshold 48.0 %)", "expected move ±4.00 bps"):
            dashboard.text("readout", text)
        expect(dashboard.page.locator("#tooltip")).to_be_hidden()
        chart.point_at(START + 440_000)
        dashboard.text("tooltip", "Alert 05:53:20 – 05:54:30 · peak 71.0 % · hit, 5 s before the spike")
        chart.point_at(START + 468_000)
        dashboard.text("tooltip", "Spike 05:54:25 – 05:54:29")
        dashboard.page.mouse.move(5, 5)
        expect(dashboard.page.locator("#readout")).to_have_text("\u00a0")
        chart.select_span(1440)
        chart.wait("d.step === 120000")
        chart.point_at(START - DAY_MS + 5 * HOUR_MS / 6)
        dashboard.text("tooltip", "No data: disconnected")
        dashboard.text("readout", "no data")
        chart.point_at(START - 8 * HOUR_MS)
        dashboard.text("readout", " O ")
        dashboard.text("readout", "highest probability 5.0 %")


def test_keys_read_move_and_zoom(browser: Browser, served: Served) -> None:
    """Everything that the pointer does is possible by keyboard, and values are read as text."""
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        chart.element.focus()
        chart.element.press("ArrowLeft")
        dashboard.text("readout", "probability")
        first = dashboard.page.locator("#readout").inner_text()
        chart.element.press("ArrowLeft")
        expect(dashboard.page.locator("#readout")).not_to_have_text(first)
        chart.element.press("ArrowRight")
        expect(dashboard.page.locator("#readout")).to_have_text(first)
        chart.element.press("Escape")
        expect(dashboard.page.locator("#readout")).to_have_text("\u00a0")
        span, start = chart.span_ms, int(chart.value("start"))
        chart.element.press("+")
        chart.wait(f"d.end - d.start < {0.6 * span}")
        chart.element.press("-")
        chart.wait(f"d.end - d.start > {0.9 * span}")
        chart.element.press("Shift+ArrowLeft")
        chart.wait(f"d.start < {start - 0.1 * span}")
        chart.wait("d.earliest > 0")
        chart.element.press("Home")
        chart.wait(f"d.start < {START - 2 * DAY_MS + HOUR_MS}")
        chart.element.press("End")
        chart.wait(f"d.end >= {served.market.now}")


def test_two_fingers_zoom(browser: Browser, served: Served) -> None:
    """Two fingers that move apart zoom in; one finger on the chart still scrolls the page."""
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with open_page(browser, served, **phone) as dashboard:
        chart = ChartPage(dashboard.page)
        devtools = dashboard.page.context.new_cdp_session(dashboard.page)
        span = chart.span_ms
        pinch(devtools, chart, [(0.45, 0.55), (0.4, 0.6), (0.3, 0.7), (0.2, 0.8), (0.1, 0.9)])
        chart.wait(f"d.end - d.start < {0.8 * span}")
        touch = "[...chart.querySelectorAll('*')].length && getComputedStyle(chart).touchAction"
        assert dashboard.page.evaluate(touch) == "pan-y"


def pinch(devtools: CDPSession, chart: ChartPage, steps: list[tuple[float, float]]) -> None:
    """Two fingers on the chart at these shares of its width, one pair after the other."""
    for number, shares in enumerate(steps):
        points = [dict(zip("xy", chart.place(share), strict=True)) | {"id": i} for i, share in enumerate(shares)]
        kind = "touchMove" if number else "touchStart"
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_candles_replace_the_line(browser: Browser, served: Served) -> None:
    """Candles of a step that fits the view are drawn instead of the line, and back."""
    with open_page(browser, served) as dashboard:
        chart = ChartPage(dashboard.page)
        model = "Bokeh.documents[0].get_model_by_name"
        dashboard.page.locator("input[value=candles]").check(force=True)
        dashboard.page.wait_for_function(f"() => {model}('candles').data.time.length > 50")
        times = dashboard.page.evaluate(f"[...{model}('candles').data.time]")
        assert {b - a for a, b in pairwise(times)} == {10_000}
        assert dashboard.page.evaluate(f"{model}('line').visible") is False
        dashboard.page.locator("input[value=line]").check(force=True)
        dashboard.page.wait_for_function(f"() => {model}('line').visible")
        assert chart.span_ms == 15 * 60_000


def test_overview_opens_a_market(browser: Browser, served: Served) -> None:
    """Each market has a row with its state; a click opens it, and the address keeps it over a reload."""
    with open_page(browser, served) as dashboard:
        rows = dashboard.page.locator("#markets tr")
        expect(rows).to_have_count(2)
        changed = served.market.markets()
        changed[1] |= {"state": "alert", "probability": 0.62, "gaps": 2, "snoozed_until": served.market.now}
        served.publish("markets", {"markets": changed})
        expect(rows.nth(1)).to_contain_text("62.0 %")
        expect(rows.nth(1)).to_contain_text("ALERT · snoozed until 06:00")
        expect(rows.nth(1)).to_contain_text("2 gaps in 1 h")
        rows.nth(1).get_by_role("link", name="ETH-USD").click()
        dashboard.page.wait_for_url("**/?product=ETH-USD")
        expect(dashboard.page.get_by_role("link", name="ETH-USD")).to_have_attribute("aria-current", "true")
        dashboard.page.reload()
        expect(dashboard.page.locator("#product")).to_have_value("ETH-USD")
        expect(dashboard.page.locator("#chart")).to_have_attribute("data-bars", "840")


def test_product_of_another_venue_is_opened(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a colon works in the address, in the list, and in requests of the past."""
    monkeypatch.setattr("tests_system.served_market.PRODUCTS", ["BTC-USD", "binance:BTC-USDT"])
    with Served(FakeMarket()) as served, open_page(browser, served) as dashboard:
        page = dashboard.page
        expect(page.locator("#product option").first).to_have_text("coinbase:BTC-USD")
        page.get_by_role("link", name="binance:BTC-USDT").click()
        page.wait_for_url("**/?product=binance%3ABTC-USDT")
        page.reload()
        expect(page.locator("#product")).to_have_value("binance:BTC-USDT")
        chart = ChartPage(page)
        chart.select_span(60)
        chart.wait("d.step === 5000")
        assert {request["product"] for request in served.market.requests} == {"binance:BTC-USDT"}


def test_browser_goes_back_to_the_market_before(browser: Browser, served: Served) -> None:
    """Each market that is opened is an entry of the browser's history."""
    with open_page(browser, served) as dashboard:
        page = dashboard.page
        page.get_by_role("link", name="ETH-USD").click()
        expect(page.get_by_role("link", name="ETH-USD")).to_have_attribute("aria-current", "true")
        page.go_back()
        expect(page.get_by_role("link", name="BTC-USD")).to_have_attribute("aria-current", "true")
        assert page.url.endswith("?product=BTC-USD")
        page.go_forward()
        expect(page.get_by_role("link", name="ETH-USD")).to_have_attribute("aria-current", "true")


def test_one_market_has_no_overview(browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of one market shows no list of markets."""
    monkeypatch.setattr(served.market, "markets", lambda: FakeMarket().markets()[:1])
    with open_page(browser, served) as dashboard:
        dashboard.text("verdict", "No alert")
        expect(dashboard.page.locator("#overview")).to_be_hidden()


def test_alerts_are_filtered_and_open_the_chart(browser: Browser, served: Served) -> None:
    """The list has the alerts of all markets, filters by market and outcome, and shows an alert in the chart."""
    market = served.market
    hit, miss = (
        market.alert("ETH-USD", f"e{i}", "closed", START + i * 60_000, START + i * 70_000, 0.6) for i in (1, 2)
    )
    market.alerts += [hit | {"outcome": "hit", "lead_s": 22.0}, miss | {"outcome": "false", "lead_s": None}]
    with open_page(browser, served) as dashboard:
        items = dashboard.page.locator("#alerts li")
        expect(items).to_have_count(3)
        dashboard.page.locator("#filter-outcome").select_option("hit")
        expect(items).to_have_count(1)
        expect(items).to_contain_text("hit, 22 s before the spike")
        dashboard.page.locator("#filter-market").select_option("BTC-USD")
        expect(items).to_have_count(0)
        dashboard.text("no-alerts", "None with this market and outcome")
        dashboard.page.locator("#filter-market").select_option("")
        dashboard.page.locator("#filter-outcome").select_option("false")
        expect(items).to_contain_text("false alarm")
        items.get_by_role("button").click()
        dashboard.page.wait_for_url("**/?product=ETH-USD")
        chart = ChartPage(dashboard.page)
        chart.wait(f"d.start < {START + 120_000} && d.end > {START + 120_000} && chart.dataset.follows === 'false'")
        dashboard.text("tooltip", "false alarm")


def test_alert_notifies_and_sounds_on_request(browser: Browser, served: Served) -> None:
    """Without a request there is neither; with it, an alert of any market makes a notification and a tone."""
    with open_page(browser, served, permissions=["notifications"]) as dashboard:
        dashboard.page.evaluate(NOTED)
        opened = served.market.now
        served.publish("alert", served.market.alert("ETH-USD", "a2", "open", opened, None, 0.62))
        dashboard.text("say", "Alert: ETH-USD")
        assert dashboard.page.evaluate("notes") == []
        dashboard.page.locator("#notify").check()
        dashboard.page.locator("#sound").check()
        expect(dashboard.page.locator("#sound")).to_have_attribute("data-played", "1")
        served.publish("alert", served.market.alert("ETH-USD", "a3", "open", opened + 9000, None, 0.62))
        dashboard.page.wait_for_function("() => notes.length === 1")
        ((title, body),) = dashboard.page.evaluate("notes")
        assert title == "SIMULATED · Alert: ETH-USD"
        assert "a spike is likely within 60 s, probability 62.0 %" in body
        expect(dashboard.page.locator("#sound")).to_have_attribute("data-played", "2")
        served.publish("alert", served.market.alert("ETH-USD", "a3", "closed", opened + 9000, opened + 18_000, 0.62))
        dashboard.text("say", "has closed")
        assert dashboard.page.evaluate("notes.length") == 1


def test_browser_that_makes_no_notification_shows_the_alert(browser: Browser, served: Served) -> None:
    """Chrome on Android raises an error for a notification of a page: the alert is shown, and the option goes off."""
    with open_page(browser, served, permissions=["notifications"]) as dashboard:
        dashboard.page.locator("#notify").check()
        failing = (
            "class { static permission = 'granted'; constructor() { throw new TypeError('Illegal constructor'); } }"
        )
        dashboard.page.evaluate(f"() => {{ window.Notification = {failing}; }}")
        served.publish("alert", served.market.alert("ETH-USD", "a2", "open", served.market.now, None, 0.62))
        expect(dashboard.page.locator("#alerts li")).to_have_count(2)
        dashboard.text("say", "This browser shows no notifications of a page.")
        expect(dashboard.page.locator("#notify")).not_to_be_checked()


def test_focus_stays_in_the_list_of_alerts(browser: Browser, served: Served) -> None:
    """A new alert, and one that changes, leave the keyboard where it is."""
    with open_page(browser, served) as dashboard:
        items = dashboard.page.locator("#alerts li")
        items.first.get_by_role("button").focus()
        opened = served.market.now
        served.publish("alert", served.market.alert("ETH-USD", "a2", "open", opened, None, 0.62))
        expect(items).to_have_count(2)
        served.publish("alert", served.market.alerts[0] | {"outcome": "hit", "lead_s": 21.0})
        expect(items.nth(1)).to_contain_text("hit, 21 s before the spike")
        expect(items.nth(1).get_by_role("button")).to_be_focused()
        expect(items.nth(0)).to_contain_text("ETH-USD")


def test_refused_notifications_are_stated(browser: Browser, served: Served) -> None:
    """A browser that denies notifications leaves the option off and says so."""
    with open_page(browser, served) as dashboard:
        dashboard.page.evaluate("Notification.requestPermission = async () => 'denied'")
        dashboard.page.locator("#notify").click()
        dashboard.text("say", "does not allow notifications")
        expect(dashboard.page.locator("#notify")).not_to_be_checked()


def test_probability_is_explained_by_outcomes(browser: Browser, served: Served) -> None:
    """Next to the probability is what followed in the minutes that were scored like it."""
    with open_page(browser, served) as dashboard:
        served.tick(64_000.0, 0.137)
        dashboard.text("explanation", "Of the last 187 minutes scored 10–\u206015 %, 23 had a spike.")
        served.tick(64_000.0, 0.15)
        dashboard.text("explanation", "No minute scored 15–\u206020 % has a known outcome yet.")
        served.tick(64_000.0, None)
        expect(dashboard.page.locator("#explanation")).to_be_empty()
        dashboard.text("bins", "23 (12.3 %)")


def test_alerts_are_counted_as_episodes(browser: Browser, served: Served) -> None:
    """The record counts alerts, not rows above the threshold, and states what followed the known ones."""
    served.market.alerts[0] |= {"outcome": "hit", "lead_s": 21.0}
    with open_page(browser, served) as dashboard:
        dashboard.text("record", "Alerts22")
        dashboard.text("record", "Followed by a spike1 of 1")
        dashboard.text("record", "False alarms0 of 1")
        dashboard.text("record", "Warning time, median21 s")
        dashboard.text("record", "Alerts since2025-12-06 05:53")
        served.publish("alert", served.market.alert("BTC-USD", "a2", "open", served.market.now, None, 0.62))
        dashboard.text("record", "Alerts23")


def test_local_time_is_shown_and_kept(browser: Browser, served: Served) -> None:
    """Times change between UTC and the browser's zone, everywhere at once and over a reload."""
    with open_page(browser, served, timezone_id="Asia/Tokyo") as dashboard:
        ChartPage(dashboard.page)
        dashboard.text("range", "06:01 UTC")
        dashboard.page.locator("#local-time").check()
        dashboard.text("range", "15:01 Asia/Tokyo")
        dashboard.text("zone", "Asia/Tokyo")
        dashboard.text("alerts", "14:53:20 – 14:54:30")
        dashboard.text("model", "2025-12-06 12:34")
        labels = dashboard.page.evaluate(
            "[...Bokeh.documents[0].get_model_by_name('time-axis').major_label_overrides.values()]"
        )
        assert "14:50" in labels
        dashboard.page.reload()
        dashboard.text("zone", "Asia/Tokyo")
        dashboard.page.locator("#local-time").uncheck()
        dashboard.text("range", "06:01 UTC")


def test_snooze_is_requested_and_ended(browser: Browser, served: Served) -> None:
    """Messages of the shown market are snoozed for the selected time and resumed."""
    with open_page(browser, served) as dashboard:
        dashboard.page.locator("#snooze-minutes").select_option("60")
        dashboard.page.get_by_role("button", name="Snooze BTC-USD").click()
        dashboard.text("snooze-state", "No messages until")
        assert [each["product"] for each in served.market.snoozes] == ["BTC-USD"]
        dashboard.page.get_by_role("button", name="Resume").click()
        expect(dashboard.page.locator("#snooze-state")).to_be_empty()
        assert served.market.snoozes == []


def test_snooze_ends_by_itself(browser: Browser, served: Served) -> None:
    """When its time is over, the page no longer states it, without a change on the server."""
    with open_page(browser, served) as dashboard:
        until = dashboard.page.evaluate("Date.now() + 800")
        served.publish("snooze", {"snoozes": [{"product": "BTC-USD", "until": until}]})
        dashboard.text("snooze-state", "No messages until")
        dashboard.page.wait_for_function(f"() => Date.now() > {until}")
        served.publish("health", served.market.health())
        expect(dashboard.page.locator("#snooze-state")).to_be_empty()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_page_is_accessible(browser: Browser, scheme: str, width: int) -> None:
    """axe-core finds no violation, with an open alert and the diagnostics unfolded."""
    look: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    with Served(FakeMarket()) as served, open_page(browser, served, **look) as dashboard:
        ChartPage(dashboard.page)
        served.tick(64_000.0, 0.62)
        served.publish("alert", served.market.alert("BTC-USD", "a2", "open", served.market.now, None, 0.62))
        dashboard.text("verdict", "ALERT")
        dashboard.page.locator("#diagnostics summary").click()
        results = Axe().run(dashboard.page)
        assert results.violations_count == 0, results.generate_report()


def test_a_page_that_stays_open_keeps_its_size(browser: Browser, served: Served) -> None:
    """The bars that the stream adds for hours are bounded, and the oldest are dropped."""
    script = """async () => {
      const { Bars } = await import("/static/bars.js");
      const bars = new Bars("BTC-USD", () => {}, () => {});
      const most = [];
      for (let s = 0; s < 20000; s += 1) {
        bars.add({ time: 1000 * s, price: 1, spread_bps: 1, probability: null });
        most.push(bars.list.length);
      }
      return [Math.max(...most), bars.last.time, bars.from === bars.list[0].time];
    }"""
    with open_page(browser, served) as dashboard:
        assert dashboard.page.evaluate(script) == [5000, 19_999_000, True]


def test_failed_history_is_stated(browser: Browser, served: Served) -> None:
    """A server that cannot answer leaves the known minutes in place, and the page says what is missing."""
    with open_page(browser, served, errors=("500",)) as dashboard:
        chart = ChartPage(dashboard.page)
        dashboard.page.route("**/history**", lambda route: route.fulfill(status=500))
        chart.select_span(60)
        dashboard.text("loading", "could not be loaded")
        assert int(chart.value("bars")) == 840
        dashboard.page.unroute("**/history**")
        chart.select_span(360)
        chart.wait("d.step > 1000")
        expect(dashboard.page.locator("#loading")).to_be_empty()


@pytest.mark.parametrize("mode", [Mode.LIVE, Mode.REPLAY])
def test_watermark_names_the_mode(browser: Browser, mode: Mode) -> None:
    """The chart itself names a market that is not live, also in a picture of it."""
    with Served(FakeMarket(mode)) as served, open_page(browser, served) as dashboard:
        ChartPage(dashboard.page)
        expect(dashboard.page.locator("#watermark")).to_have_text(mode.label)
