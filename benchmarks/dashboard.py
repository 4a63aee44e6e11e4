"""The dashboard in Chromium: frames/s while the wheel zooms through a day, and the time until it is drawn."""

from __future__ import annotations

import time
from typing import Final

from playwright.sync_api import Page
from tests_system.served_market import FakeMarket, Served, chromium

from benchmarks.figures import Figure

STEPS: Final = 60
LEAST_SHARE: Final = 0.5
LIMIT_S: Final = 2.0

_COUNT: Final = """() => {
  window.frameTimes = [];
  (function next(now) { window.frameTimes.push(now); requestAnimationFrame(next); })(performance.now());
}"""
_DRAWN: Final = "() => Number(document.getElementById('chart')?.dataset.bars) > 0"


def main() -> list[Figure]:
    """Open the page of a fixed market, show a day, and zoom in and out."""
    with chromium() as browser, Served(FakeMarket()) as served:
        page = browser.new_page(viewport={"width": 1440, "height": 1100})
        began = time.perf_counter()
        page.goto(served.url)
        page.wait_for_function(_DRAWN)
        drawn_s = time.perf_counter() - began
        page.locator("input[name=span][value='1440']").check(force=True)
        page.wait_for_function("() => Number(document.getElementById('chart').dataset.step) > 1000")
        page.evaluate(_COUNT)
        idle = _frames_per_second(page, 0)
        zooming = _frames_per_second(page, STEPS)
    share = f"{zooming:.0f} frames/s, {100 * zooming / idle:.0f} % of idle"
    return [
        Figure(
            "dashboard: frames while zooming through a day",
            share,
            f"at least {100 * LEAST_SHARE:.0f} % of idle",
            zooming >= LEAST_SHARE * idle,
            f"{idle:.0f} frames/s without input",
        ),
        Figure(
            "dashboard: from the request to the drawn chart",
            f"{drawn_s:.1f} s",
            f"under {LIMIT_S:.0f} s",
            drawn_s < LIMIT_S,
        ),
    ]


def _frames_per_second(page: Page, wheels: int) -> float:
    box = page.locator("#chart").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
    page.evaluate("() => { window.frameTimes.length = 0; }")
    for number in range(wheels):
        page.mouse.wheel(0, -120 if number < wheels / 2 else 120)
    if not wheels:
        page.wait_for_timeout(1000)
    frames: list[float] = page.evaluate("() => window.frameTimes")
    return 1000 * (len(frames) - 1) / (frames[-1] - frames[0])


if __name__ == "__main__":
    for figure in main():
        print(" | ".join(figure.cells()))
