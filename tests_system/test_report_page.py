"""The HTML report in a real Chromium: no errors or requests, usable, accessible, in light, dark and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from tests.reporting.conftest import evaluation, folder, report

from tests_system.served_market import OpenPage
from volspike.reporting.evaluate import EvaluationReport
from volspike.reporting.report_page import write_page

__all__ = ["evaluation", "folder", "report"]


@pytest.fixture(scope="module")
def file(evaluation: EvaluationReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "r.html"
    write_page(evaluation, path, lambda _: None)
    return path


@pytest.mark.parametrize(
    "context",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
    ],
    ids=["light", "dark", "phone"],
)
def test_report_is_drawn_and_moves(browser: Browser, file: Path, context: dict[str, Any]) -> None:
    """No error, no request but for the file, no overflow, no serious violation; zoom, next alert and wheel work."""
    with browser.new_context(**context) as opened:
        shown = OpenPage(opened.new_page())
        shown.page.goto(file.as_uri())
        timeline = shown.page.locator("#timeline")
        expect(shown.page.locator("html[data-drawn]")).to_have_count(1)
        assert int(timeline.get_attribute("data-start") or 0) >= 1764979200000
        first, last = (int(timeline.get_attribute(f"data-{end}") or 0) for end in ("start", "end"))
        shown_share = shown.page.evaluate(
            "(({ time, probability }) => probability.filter((value) => !Number.isNaN(value)).length / time.length)"
            "(Bokeh.documents.at(0).get_model_by_name('bars').data)"
        )
        assert shown_share > 0.5
        assert 30_000 < last - first <= 86_400_000
        times = shown.page.evaluate("[...Bokeh.documents.at(0).get_model_by_name('bars').data.time]")
        assert times == sorted(times)
        rows = int(timeline.get_attribute("data-rows") or 0)
        assert 0 < int(timeline.get_attribute("data-points") or 0) <= min(rows, 3000) * 2
        width = shown.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0
        background = shown.page.evaluate(
            "Bokeh.documents[0].all_models.size > 0 && getComputedStyle(document.body).color"
        )
        assert background == ("rgb(233, 238, 246)" if context["color_scheme"] == "dark" else "rgb(19, 26, 38)")
        shown.page.get_by_role("button", name="next alert").click()
        shown.page.wait_for_function("timeline.dataset.end - timeline.dataset.start < 7200000")
        before = int(timeline.get_attribute("data-end") or 0) - int(timeline.get_attribute("data-start") or 0)
        timeline.scroll_into_view_if_needed()
        box = timeline.bounding_box()
        assert box is not None
        shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
        shown.page.mouse.wheel(0, -300)
        shown.page.wait_for_function(f"timeline.dataset.end - timeline.dataset.start < {before}")
        found = Axe().run(shown.page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in {"serious", "critical"}] == []
    assert shown.errors == []
    assert shown.requested == {file.as_uri()}
