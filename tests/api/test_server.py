"""The server process, tested through its socket: connection limits, shutdown, addresses."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import sys
import time
from contextlib import suppress
from typing import Any, ClassVar, cast

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from volspike.api.app import create_app
from volspike.api.docs import EXAMPLE_FEATURES
from volspike.api.server import BoundedConnection, ConnectionLimits, _claim, bounded_protocol, listen, serve
from volspike.config import ServingSettings
from volspike.errors import UsageError

LIMITS = ConnectionLimits.of(ServingSettings())
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = json.dumps({"features": EXAMPLE_FEATURES}).encode()
MANY = json.dumps({"rows": [EXAMPLE_FEATURES] * 2000}).encode()


def post(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One response on a connection: status, headers, body."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        lines = iter(stream.readline, b"\r\n")
        headers = dict(line.decode().strip().split(": ", 1) for line in lines)
        return status, headers, stream.read(int(headers["content-length"]))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes or resets the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"c" * 3000,
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 500,
        b"GET /" + b"p" * 3000 + b" HTTP/1.1\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"c" * 3000 + b"\r\n\r\n",
    ],
    ids=["endless header", "endless headers", "endless path", "complete but large"],
)
def test_a_large_head_is_rejected(process: Any, head: bytes) -> None:
    """A head over the limit, complete or not, is a 431 and closes the connection; a smaller one is served."""
    server = process(max_head_bytes=2048)
    with server.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"c" * 1900 + b"\r\n\r\n")
        assert answer(connection)[0] == 200
        connection.sendall(head)
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (431, "close")
        assert json.loads(body) == {"detail": "the request head is over 2048 bytes"}
        assert is_closed(connection)


@pytest.mark.parametrize(("before", "sent"), [(0, b""), (0, b"GET /health"), (0, b"\r\n"), (1, b"GET"), (2, b"\r\n")])
def test_an_incomplete_head_times_out(process: Any, before: int, sent: bytes) -> None:
    """A connection without a complete head in time is closed, whether or not it sent requests before."""
    server = process(head_s=0.2)
    with server.connect() as connection:
        for _ in range(before):
            connection.sendall(LIVE)
            assert answer(connection)[0] == 200
        if sent:
            connection.sendall(sent)
            status, headers, _ = answer(connection)
            assert (status, headers["connection"]) == (408, "close")
        assert is_closed(connection)


def test_an_idle_connection_has_no_head_timeout(process: Any) -> None:
    """Between two requests the time limit for a head does not apply."""
    server = process(head_s=0.1)
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(LIVE)
            assert answer(connection)[0] == 200
            connection.settimeout(0.4)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(20)


def test_an_incomplete_body_times_out(process: Any) -> None:
    """A body that does not arrive in time is a 408."""
    server = process(body_s=0.3)
    with server.connect() as connection:
        connection.sendall(post(b"x" * 100)[:-50])
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert b"0.3 s" in body
        assert is_closed(connection)


def test_a_client_that_does_not_read_is_disconnected(process: Any) -> None:
    """A connection whose responses are not read is closed; others are not affected."""
    server = process(stalled_s=0.3, rate_limit=0)
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.settimeout(20)
    stalled.connect(("127.0.0.1", server.port))
    with stalled, server.connect() as other:
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 20:
                stalled.sendall(post(MANY))
        assert time.monotonic() - began < 20
        other.sendall(LIVE)
        assert answer(other)[0] == 200


def test_connections_over_the_limit_are_rejected(process: Any) -> None:
    """The connection over the limit is a 503 and is closed; after another one closes, a new one is accepted."""
    server = process(max_connections=2)
    with server.connect() as first:
        with server.connect() as second, server.connect() as third:
            status, headers, body = answer(third)
            assert (status, headers["connection"]) == (503, "close")
            assert b"too many open connections" in body
            for each in (first, second):
                each.sendall(LIVE)
                assert answer(each)[0] == 200
        first.sendall(LIVE)
        assert answer(first)[0] == 200
        with server.connect() as fourth:
            fourth.sendall(LIVE)
            assert answer(fourth)[0] == 200


def test_a_rejected_body_does_not_affect_the_next_request(process: Any) -> None:
    """The rest of a rejected body is discarded, however large, and the connection stays open."""
    server = process(rate_limit=1, max_head_bytes=2048)
    with server.connect() as connection:
        connection.sendall(post(MANY))
        assert answer(connection)[0] == 200
        connection.sendall(post(MANY))
        status, headers, _ = answer(connection)
        assert (status, "retry-after" in headers, headers.get("connection")) == (429, True, None)
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_log_lines_have_the_correlation_id(process: Any) -> None:
    """With ``log_requests`` each line has the id that the client sent."""
    server = process(log_requests=True)
    with server.connect() as connection:
        connection.sendall(post(b"{}", b"X-Correlation-ID: trace-7\r\n"))
        assert answer(connection)[0] == 422
    event = server.until("request")
    assert (event["correlation_id"], event["status"], event["client"]) == ("trace-7", 422, "127.0.0.1")


def test_the_client_address_comes_from_a_trusted_proxy(process: Any) -> None:
    """Behind a trusted proxy each client has its own limit; X-Forwarded-For from others is ignored."""
    trusting, wary = process(rate_limit=1, trusted_proxies=["127.0.0.1"]), process(rate_limit=1)
    for server, wanted in ((trusting, [200, 200, 429]), (wary, [200, 429, 429])):
        with server.connect() as connection:
            found = []
            for client in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"):
                body = json.dumps({"features": EXAMPLE_FEATURES}).encode()
                connection.sendall(post(body, b"X-Forwarded-For: " + client + b"\r\n"))
                found.append(answer(connection)[0])
        assert found == wanted


def test_connections_are_reused_and_sigterm_stops_gracefully(process: Any) -> None:
    """A connection serves several requests, also after errors; SIGTERM ends the process with status 0."""
    server = process()
    with server.connect() as connection:
        for body, wanted in ((BODY, 200), (b"{}", 422), (b"\xff", 422), (BODY, 200)):
            connection.sendall(post(body))
            status, headers, _ = answer(connection)
            assert status == wanted
            assert headers.get("connection") is None
            assert len(headers["x-correlation-id"]) == 32
        server.terminate()
        assert is_closed(connection)
    server.until("server_stopped")
    assert server.wait() == 0
    assert [event["event"] for event in server.events] == [
        "model_loaded",
        "model_limitations",
        "server_started",
        "server_stopping",
        "server_stopped",
    ]


def test_head_has_no_body_on_the_wire(process: Any) -> None:
    """A second request on the connection is answered, and a name of another site is rejected."""
    server = process()
    with server.connect() as connection:
        connection.sendall(b"HEAD /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = connection.recv(65_536)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert head.endswith(b"\r\n\r\n")
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200
        connection.sendall(LIVE.replace(b"localhost", b"evil.example"))
        assert answer(connection)[0] == 421


def test_the_log_of_malformed_requests_is_bounded(process: Any) -> None:
    """Of many requests that are not HTTP, twenty are logged."""
    server = process()
    for _ in range(40):
        with server.connect() as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 400")
    server.terminate()
    server.until("server_stopped")
    assert [event["event"] for event in server.events].count("request_rejected") == 20


def test_a_request_in_flight_is_answered_before_the_stop(process: Any) -> None:
    """A request whose body is incomplete at SIGTERM is still scored; then the connection closes."""
    server = process()
    with server.connect() as connection:
        request = post(BODY)
        connection.sendall(request[:-20])
        # the response on a second connection shows that the server has read the first one's head
        with server.connect() as second:
            second.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(second)[0] == 200
        server.terminate()
        server.until("server_stopping")
        connection.sendall(request[-20:])
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(body)["model_version"] == "logistic (ml)"
        assert is_closed(connection)
    assert server.wait() == 0


def test_chunked_bodies_over_the_limit_get_theiranswer(process: Any) -> None:
    """A chunked body is refused once it passes the limit, the client can read why, and the server goes on."""
    server = process(max_body_bytes=100_000)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["detail"] == "the body is over 100000 bytes; send fewer rows per request"
        assert is_closed(connection)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert answer(connection)[0] == 200


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_declared_bodies_over_the_limit_are_rejected_at_once(process: Any, expect: bytes) -> None:
    """A Content-Length over the limit is rejected without waiting for the body or sending 100 Continue."""
    server = process(max_body_bytes=1000)
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n" + expect + b"\r\n")
        status, headers, _ = answer(connection)
        assert (status, headers["connection"]) == (413, "close")
        connection.sendall(b" " * 5000)
        assert is_closed(connection)


def test_a_port_in_use_is_a_usage_error() -> None:
    """The error names the port and the host."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)


def test_no_second_server_takes_over_a_port_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """``SO_REUSEADDR``, with which Windows lets another process bind a port that is in use, is not set there."""

    class Listener:
        options: ClassVar[list[int]] = []

        def setsockopt(self, level: int, option: int, value: int) -> None:
            self.options.append(option)

    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    for platform in ("win32", "linux"):
        monkeypatch.setattr(sys, "platform", platform)
        _claim(cast("socket.socket", Listener()))
    assert Listener.options == [-5, socket.SO_REUSEADDR]


@pytest.mark.parametrize(("host", "port"), [("host.invalid", 8000), ("192.0.2.1", 8000), ("127.0.0.1", 70_000)])
def test_an_invalid_address_is_a_usage_error(host: str, port: int) -> None:
    """A host that is not an address of this machine, or an invalid port, is named in the error."""
    with pytest.raises(UsageError, match=f"cannot listen on {host}:{port}"):
        listen(host, port)


def test_an_unknown_log_level_is_a_usage_error() -> None:
    """The level is checked before anything starts."""
    with pytest.raises(UsageError, match="unknown log level 'LOUD'"):
        serve(ServingSettings(log_level="LOUD", port=0))


PRIVATE = (
    "uvicorn's private protocol class has changed; adapt BoundedConnection, or lower the upper bound of uvicorn in "
    "pyproject.toml and requirements"
)


@pytest.mark.parametrize(
    "name",
    [
        *("connection_made", "connection_lost", "data_received", "pause_writing"),
        *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete"),
    ],
)
def test_uvicorns_protocol_has_the_methods_that_are_overridden(name: str) -> None:
    """A method that uvicorn renames would no longer be called, and its limit would silently vanish."""
    overridden, original = getattr(BoundedConnection, name), getattr(HttpToolsProtocol, name, None)
    assert original is not None, f"no {name}: {PRIVATE}"
    assert overridden is not original
    parameters = [list(inspect.signature(method).parameters) for method in (overridden, original)]
    assert parameters[0] == parameters[1], f"{name}{parameters[1]}: {PRIVATE}"


def test_uvicorns_protocol_has_the_attributes_that_are_used() -> None:
    """After the head of a request, uvicorn's protocol has every attribute that the limits read or set."""

    async def serve_one() -> BoundedConnection:
        config = uvicorn.Config(create_app(ServingSettings()), http=bounded_protocol(LIMITS), log_config=None)
        config.load()
        state = ServerState()
        protocol = bounded_protocol(LIMITS)(config=config, server_state=state, app_state={})  # type: ignore[call-arg]
        assert isinstance(protocol, BoundedConnection), PRIVATE
        assert state.connections is protocol.connections, PRIVATE
        server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(LIVE)
            await reader.readuntil(b"}")
            for name in ("loop", "transport", "url", "headers", "cycle", "connections"):
                assert hasattr(protocol, name), f"no {name}: {PRIVATE}"
            assert protocol in protocol.connections, PRIVATE
            assert isinstance(protocol.url, bytes), PRIVATE
            for name in ("keep_alive", "response_complete"):
                assert isinstance(getattr(protocol.cycle, name, None), bool), f"no cycle.{name}: {PRIVATE}"
            writer.close()
            await writer.wait_closed()
        await asyncio.gather(*state.tasks)
        return protocol

    assert asyncio.run(serve_one())._head_timer is None
