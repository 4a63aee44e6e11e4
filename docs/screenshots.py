"""Take the screenshots of the documentation from the running program: ``python docs/screenshots.py [--seconds 600]``.

It starts ``volspike up`` on the simulated exchange, in a temporary folder and on a free port, waits for an alert whose
outcome is known, and photographs the page in Chromium. The market is that of a fixed seed; the moment of the pictures
depends on the speed of the machine.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

DOCS: Final = Path(__file__).resolve().parent
PRODUCTS: Final = ("BTC-USD", "ETH-USD", "SOL-USD")
SPEED: Final = 15
COLOURS: Final = 128
MOST_BYTES: Final = 600_000
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture of the page; ``part`` is the element id that is scrolled to the top, the page's top by default."""

    name: str
    width: int = 1280
    height: int = 860
    is_dark: bool = False
    part: str = ""


ONE_MARKET: Final = (
    Shot("dashboard"),
    Shot("dashboard_below", height=900, part="alerts-title"),
    Shot("dashboard_dark", is_dark=True),
    Shot("dashboard_phone", width=390, height=844),
)
SEVERAL_MARKETS: Final = (Shot("dashboard_markets"),)


def take_screenshots(folder: Path, seconds: float) -> list[Path]:
    """Write every picture to ``folder``; wait at most ``seconds`` for an alert.

    Raises:
        TimeoutError: there is no alert with an outcome in time.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        written: list[Path] = []
        with running_server(PRODUCTS[:1]) as one, running_server(PRODUCTS) as several:
            for url, shots in ((several, SEVERAL_MARKETS), (one, ONE_MARKET)):
                wait_for_alert(url, seconds)
                written += [photograph(browser, url, shot, folder) for shot in shots]
        written.append(report_page(browser, folder))
        browser.close()
    return written


@contextmanager
def running_server(products: Sequence[str]) -> Iterator[str]:
    """The address of ``volspike up`` on the simulated exchange, which ends with the context."""
    pairs = [word for product in products for word in ("--pair", product)]
    options = ["--source", "simulator", "--speed", str(SPEED), "--port", "0", "--no-retrain", *pairs]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-m", "volspike", "up", *options], cwd=folder, stderr=subprocess.PIPE, text=True
        )
        try:
            yield address_in(process.stderr)
        finally:
            process.terminate()
            process.wait(timeout=60)


def address_in(log: Any) -> str:
    """The address of the server from its log; the rest of the log is read and dropped, so that the pipe never fills.

    Raises:
        RuntimeError: the server ended before it listened.
    """
    lines = []
    for line in log:
        lines.append(line)
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "server_started":
            threading.Thread(target=lambda: [None for _ in log], daemon=True).start()
            return f"http://{event['host']}:{event['port']}/"
    raise RuntimeError(f"volspike up ended: {''.join(lines)}")


def wait_for_alert(url: str, seconds: float) -> None:
    """Return when an alert has an outcome."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}alerts", timeout=10) as response:  # noqa: S310  our own server
            alerts = json.load(response)["alerts"]
        if any(alert["outcome"] != "pending" for alert in alerts):
            return
        time.sleep(1)
    raise TimeoutError(f"no alert has an outcome after {seconds:g} s; use --seconds")


def photograph(browser: Browser, url: str, shot: Shot, folder: Path) -> Path:
    """The picture of the page as a compressed PNG."""
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme="dark" if shot.is_dark else "light",
        reduced_motion="reduce",
        timezone_id="UTC",
    )
    try:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#probability")).to_have_text(re.compile(r"\d"), timeout=30_000)
        expect(page.locator("#chart canvas").first).to_be_visible(timeout=30_000)
        page.wait_for_timeout(1200)  # the chart loads its history
        if shot.part:
            page.locator(f"#{shot.part}").evaluate("e => { e.scrollIntoView(); scrollBy(0, -24) }")
        return write_png(Image.open(io.BytesIO(page.screenshot())), folder / f"{shot.name}.png")
    finally:
        context.close()


def report_page(browser: Browser, folder: Path) -> Path:
    """The top of the report page of a model for a simulated market."""
    commands = (
        "simulate --minutes 2880 --out tape.parquet",
        "replay --raw tape.parquet --every 1s --out features.parquet --add-labels --spike jump:2",
        "train --features features.parquet --models lightgbm --search 0 --threshold minutes_30_per_day",
        "report --features features.parquet --output report.html",
    )
    with tempfile.TemporaryDirectory() as work:
        for command in commands:
            subprocess.run(  # noqa: S603  our own commands
                [sys.executable, "-m", "volspike", *command.split()], cwd=work, check=True, capture_output=True
            )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((Path(work) / "report.html").as_uri())
        expect(page.locator("canvas").first).to_be_visible(timeout=30_000)
        page.wait_for_timeout(1200)
        return write_png(Image.open(io.BytesIO(page.screenshot())), folder / "report.png")


def write_png(image: Image.Image, path: Path) -> Path:
    """Write an image with a palette, which needs about a third of the bytes."""
    image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main() -> None:
    """Write the pictures to ``docs`` and fail if they are too large together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--seconds", type=float, default=600, help="time to wait for an alert (default: 600)")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pictures (default: docs)")
    arguments = parser.parse_args()
    written = take_screenshots(arguments.out, arguments.seconds)
    size = sum(path.stat().st_size for path in written)
    sys.stdout.write("".join(f"{path.stat().st_size / 1000:6.0f} kB  {path.name}\n" for path in written))
    if size > MOST_BYTES:
        sys.exit(f"the pictures have {size / 1000:.0f} kB together; at most {MOST_BYTES / 1000:.0f} kB are allowed")


if __name__ == "__main__":
    main()
