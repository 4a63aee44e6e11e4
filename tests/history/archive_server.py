"""A local HTTP server with the layouts of public archives, byte ranges, and faults; and files to serve."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from volspike.history.archives import ARCHIVES, ArchiveFile
from volspike.market.time import SECOND_NS


@dataclass(slots=True)
class Fault:
    """What happens to one request instead of the usual answer.

    ``status`` is sent with ``headers``. ``cut_after`` bytes of the content are sent, then the connection is closed;
    ``ignores_range``: the file is sent from its start. ``at_request`` is run before the answer.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    resets: bool = False
    ignores_range: bool = False
    at_request: Callable[[], None] | None = None


@dataclass(slots=True)
class ArchiveServer:
    """Serves ``files`` by path. ``faults`` are the next answers for a path, used once each.

    ``requests`` are the methods, paths and ranges received, ``keys`` the authorizations. ``etags``: whether files have
    an ETag.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    etags: bool = True
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, file: ArchiveFile, content: bytes) -> str:
        """Serves a file of an archive, with its checksum if the venue publishes one; returns its path."""
        self.files[file.path] = content
        if file.archive.checksum_ending:
            line = f"{hashlib.sha256(content).hexdigest()}  {file.name}\n"
            self.files[file.path + file.archive.checksum_ending] = line.encode()
        return file.path

    def downloads(self) -> list[str]:
        """The paths of the files that were requested, without checksums."""
        return [path for method, path, _ in self.requests if method == "GET" and not path.endswith(".CHECKSUM")]

    def take(self, method: str, path: str, byte_range: str, key: str) -> Fault:
        """Counts a request; what happens to it."""
        with self.lock:
            self.requests.append((method, path, byte_range))
            self.keys.append(key)
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else Fault()


@contextmanager
def open_archive(server: ArchiveServer) -> Iterator[ArchiveServer]:
    """The server behind a socket of this machine, with its ``url``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer("HEAD")

        def do_GET(self) -> None:
            self.answer("GET")

        def answer(self, method: str) -> None:
            byte_range = self.headers.get("range", "")
            fault = server.take(method, self.path, byte_range, self.headers.get("authorization", ""))
            if fault.at_request is not None:
                fault.at_request()
            content = server.files.get(self.path)
            if fault.resets:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                return
            if fault.status != 200 or content is None:
                self.reply(fault.status if fault.status != 200 else 404, fault.headers, b"", 0)
                return
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            headers = {"etag": etag} if server.etags else {}
            found = re.fullmatch(r"bytes=(\d+)-", byte_range)
            condition = self.headers.get("if-range", etag)
            if found is None or fault.ignores_range or condition != etag:
                self.reply(200, headers, content, fault.cut_after, method)
            elif int(found[1]) >= len(content):
                self.reply(416, {"content-range": f"bytes */{len(content)}"}, b"", None)
            else:
                at = int(found[1])
                headers["content-range"] = f"bytes {at}-{len(content) - 1}/{len(content)}"
                self.reply(206, headers, content[at:], fault.cut_after, method)

        def reply(
            self, status: int, headers: dict[str, str], body: bytes, cut: int | None, method: str = "GET"
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if method == "GET":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None and cut < len(body):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # killed clients
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def file_of(source: str, product_id: str, kind: str, day: date, end: date | None = None) -> ArchiveFile:
    """A file of an archive; with ``end`` that of a month."""
    layout = ARCHIVES[source].layout(kind, is_monthly=end is not None)
    assert layout is not None
    return ArchiveFile(ARCHIVES[source], layout, product_id, day, end or date.fromordinal(day.toordinal() + 1))


def midnight_ms(day: date) -> int:
    """The start of a day in ms."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def agg_trades(ids: Sequence[int], day: date, *, unit: int = 1_000, header: bool = False, days: int = 1) -> str:
    """Rows of aggTrades of Binance spot spread over a day (or ``days``); ``unit``: 1 for ms, 1,000 for µs."""
    step = 86_400_000 * days // (len(ids) + 1)
    start = midnight_ms(day)
    rows = [
        f"{trade_id},{60_000 + trade_id % 97}.50,0.{1 + trade_id % 9}0,{trade_id},{trade_id},"
        f"{(start + place * step) * unit},{'True' if trade_id % 2 else 'False'},True\n"
        for place, trade_id in enumerate(ids)
    ]
    head = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match\n"
    return (head if header else "") + "".join(rows)


def zipped(text: str, name: str = "trades.csv") -> bytes:
    """A zip archive with one file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name, (2025, 10, 4, 0, 0, 0)), text)
    return packed.getvalue()


def gzipped(text: str) -> bytes:
    """A gzip file."""
    return gzip.compress(text.encode(), mtime=0)


def time_ns(day: date) -> int:
    """The start of a day in ns."""
    return midnight_ms(day) * SECOND_NS // 1000
