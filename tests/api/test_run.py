"""The serving process, seen from its socket."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from volspike.api.docs import EXAMPLE_FEATURES
from volspike.api.server import listen, serve
from volspike.config import ServingSettings
from volspike.errors import UsageError

BODY = json.dumps({"features": EXAMPLE_FEATURES}).encode()


def _post(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer of a connection: status, headers, body."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers: dict[str, str] = {}
        for line in iter(stream.readline, b"\r\n"):
            name, value = line.decode().strip().split(": ", 1)
            headers[name] = value
        return status, headers, stream.read(int(headers["content-length"]))


def _is_closed(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


def test_connections_are_kept_and_the_process_ends_well(process: Any) -> None:
    """One connection serves several requests, refused ones too; SIGTERM ends the process with status 0 and a log."""
    server = process()
    with server.connect() as connection:
        for body, wanted in ((BODY, 200), (b"{}", 422), (b"\xff", 422), (BODY, 200)):
            connection.sendall(_post(body))
            status, headers, _ = _answer(connection)
            assert status == wanted
            assert headers.get("connection") is None
            assert len(headers["x-correlation-id"]) == 32
        server.terminate()
        assert _is_closed(connection)
    server.until("server_stopped")
    assert server.wait() == 0
    assert [event["event"] for event in server.events] == [
        "model_loaded",
        "server_started",
        "server_stopping",
        "server_stopped",
    ]


def test_a_request_in_flight_is_answered_before_the_end(process: Any) -> None:
    """A request whose body is still coming when the server is told to stop is scored, then the connection closes."""
    server = process()
    with server.connect() as connection:
        request = _post(BODY)
        connection.sendall(request[:-20])
        # a second connection's answer shows that the server has read the first one's headers
        with server.connect() as second:
            second.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert _answer(second)[0] == 200
        server.terminate()
        server.until("server_stopping")
        connection.sendall(request[-20:])
        status, headers, body = _answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(body)["model_version"] == "logistic (ml)"
        assert _is_closed(connection)
    assert server.wait() == 0


def test_chunked_bodies_over_the_limit_get_their_answer(process: Any) -> None:
    """A chunked body is refused once it passes the limit, the client can read why, and the server goes on."""
    server = process(max_body_bytes=100_000)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        status, headers, body = _answer(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["detail"] == "the body is over 100000 bytes; send fewer rows at a time"
        assert _is_closed(connection)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert _answer(connection)[0] == 200


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_declared_bodies_over_the_limit_are_refused_before_they_come(process: Any, expect: bytes) -> None:
    """A Content-Length over the limit is answered without waiting for the body, nor asking for it."""
    server = process(max_body_bytes=1000)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n" + expect + b"\r\n")
        status, headers, _ = _answer(connection)
        assert (status, headers["connection"]) == (413, "close")
        connection.sendall(b" " * 5000)
        assert _is_closed(connection)


def test_a_taken_port_is_one_clear_line() -> None:
    """A port that another socket listens on is an error of usage that names it."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is taken"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("host.invalid", 8000), ("192.0.2.1", 8000), ("127.0.0.1", 70_000)])
def test_an_address_that_is_not_ours_is_one_clear_line(host: str, port: int) -> None:
    """A host that is no address of this machine, or a port that is none, is an error of usage."""
    with pytest.raises(UsageError, match=f"cannot listen on {host}:{port}"):
        listen(host, port)


def test_an_unknown_log_level_is_one_clear_line() -> None:
    """A level that does not exist is refused before anything starts."""
    with pytest.raises(UsageError, match="'LOUD' is not known"):
        serve(ServingSettings(log_level="LOUD", port=0))
