"""Local servers, each in its own thread: the simulated exchange, and a web server with given answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings

Answers = Mapping[str, tuple[int, str]]


@contextmanager
def open_exchange(**settings: Any) -> Iterator[SimulatedExchange]:
    """The simulated exchange, open until the block ends; its ``url`` works from any thread."""
    exchange = SimulatedExchange(SimulatedExchangeSettings(**{"products": ("BTC-USD",), "kept": 0, **settings}))
    loop, opened, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def run() -> None:
        async with exchange:
            opened.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert opened.wait(20)
        yield exchange
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


@contextmanager
def open_site(answers: Answers) -> Iterator[str]:
    """The address of a web server that answers ``answers[path]`` (status, body), and 404 to all else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's signature
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(20)


def nobody() -> str:
    """An address of this machine on which nothing listens."""
    return "127.0.0.1:9"
