"""Local receivers of alerts: one that answers, one that hangs, one that refuses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Listener(ThreadingHTTPServer):
    """A local HTTP receiver that responds with the given statuses, repeating the last."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.statuses = list(statuses)
        self.received: list[dict[str, object]] = []
        self.authorization: list[str | None] = []

    @property
    def url(self) -> str:
        return f"json://watch:hunter2@127.0.0.1:{self.server_address[1]}/sesame"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Listener)
        server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        server.authorization.append(self.headers["Authorization"])
        self.send_response(server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No log output."""


@contextmanager
def listening(*statuses: int) -> Iterator[Listener]:
    with Listener(*statuses) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hanging() -> Iterator[str]:
    """The URL of a receiver that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"json://watch:hunter2@127.0.0.1:{server.getsockname()[1]}/sesame"


def refusing() -> str:
    """The URL of a closed port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"json://watch:hunter2@127.0.0.1:{server.getsockname()[1]}/sesame"
