"""The documentation site in a real Chromium, from the disk and from a server: search, diagrams, no other host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
PAGES = ("index.html", "architecture.html", "reference_library.html", "http_api.html", "decisions/index.html")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
        """Drop the message."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder)]
    done = subprocess.run(  # noqa: S603  our own command
        command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The address of the site on a loopback server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        yield started
        started.close()


@pytest.mark.parametrize("place", ["server", "disk"])
def test_the_site_needs_no_other_host(place: str, site: Path, served: str, browser: Browser) -> None:
    """Every resource is found in the site itself, no script fails, and the search finds a page."""
    base = served if place == "server" else f"{site.as_uri()}/"
    context = browser.new_context()
    page = context.new_page()
    requests: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    for name in PAGES:
        page.goto(base + name)
        expect(page.locator("h1").first).to_be_visible()
    page.goto(f"{base}index.html")
    page.keyboard.press("s")
    page.keyboard.type("purge embargo")
    expect(page.locator(".md-search-result__item").first).to_be_visible(timeout=15_000)
    context.close()
    assert [url for url in requests if not url.startswith((base, "data:", "blob:"))] == []
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_diagrams_follow_the_mode_of_the_page(scheme: str, served: str, browser: Browser) -> None:
    """The text of a diagram is dark in light mode and light in dark mode."""
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.goto(f"{served}architecture.html")
    colour = page.locator("svg.diagram text").first.evaluate("e => getComputedStyle(e).fill")
    context.close()
    brightness = sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 383) == (scheme == "dark")
