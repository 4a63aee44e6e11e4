"""What one connection may take of the server, seen from a socket of a real process."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from volspike.api.docs import EXAMPLE_FEATURES

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = json.dumps({"rows": [EXAMPLE_FEATURES] * 2000}).encode()


def post(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer of a connection: status, headers, body."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        lines = iter(stream.readline, b"\r\n")
        headers = dict(line.decode().strip().split(": ", 1) for line in lines)
        return status, headers, stream.read(int(headers["content-length"]))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server ends the connection, in whatever way."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 3000,
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 500,
        b"GET /" + b"p" * 3000 + b" HTTP/1.1\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 3000 + b"\r\n\r\n",
    ],
    ids=["endless header", "endless headers", "endless path", "whole but large"],
)
def test_a_large_head_is_refused(process: Any, head: bytes) -> None:
    """A head over the limit, whether it ends or not, gets 431 and the connection closes; a smaller one is answered."""
    server = process(max_head_bytes=2048)
    with server.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 1900 + b"\r\n\r\n")
        assert answer(connection)[0] == 200
        connection.sendall(head)
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (431, "close")
        assert json.loads(body) == {"detail": "the request's head is over 2048 bytes"}
        assert is_closed(connection)


@pytest.mark.parametrize(("before", "sent"), [(0, b""), (0, b"GET /health"), (0, b"\r\n"), (1, b"GET"), (2, b"\r\n")])
def test_a_head_that_does_not_come_is_given_up(process: Any, before: int, sent: bytes) -> None:
    """A client that says nothing, or stops in the middle of a head, loses its connection, whatever it did before."""
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


def test_a_kept_connection_may_rest_longer_than_a_head(process: Any) -> None:
    """Between two requests there is no head to wait for."""
    server = process(head_s=0.1)
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(LIVE)
            assert answer(connection)[0] == 200
            connection.settimeout(0.4)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(20)


def test_slow_bodies_are_given_up(process: Any) -> None:
    """A body that comes byte by byte gets 408 when its time is over."""
    server = process(body_s=0.3)
    with server.connect() as connection:
        connection.sendall(post(b"x" * 100)[:-50])
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert b"0.3 s" in body
        assert is_closed(connection)


def test_a_client_that_does_not_read_is_cut_off(process: Any) -> None:
    """Answers that nobody takes do not stay in the server: the connection is ended, and others never notice."""
    server = process(stalled_s=0.3, rate_limit=0)
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.settimeout(20)
    deaf.connect(("127.0.0.1", server.port))
    with deaf, server.connect() as other:
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 20:
                deaf.sendall(post(MANY))
        assert time.monotonic() - began < 20
        other.sendall(LIVE)
        assert answer(other)[0] == 200


def test_there_is_room_for_so_many(process: Any) -> None:
    """The connection over the limit gets 503 and is closed; when one goes, another comes."""
    server = process(max_connections=2)
    with server.connect() as first:
        with server.connect() as second, server.connect() as third:
            status, headers, body = answer(third)
            assert (status, headers["connection"]) == (503, "close")
            assert b"too many connections" in body
            for each in (first, second):
                each.sendall(LIVE)
                assert answer(each)[0] == 200
        first.sendall(LIVE)
        assert answer(first)[0] == 200
        with server.connect() as fourth:
            fourth.sendall(LIVE)
            assert answer(fourth)[0] == 200


def test_a_refused_body_does_not_spoil_the_next_request(process: Any) -> None:
    """What still comes of a body that was refused unread is passed over, however large; the connection is kept."""
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
    """With requests logged, each line carries the id that the client sent."""
    server = process(log_requests=True)
    with server.connect() as connection:
        connection.sendall(post(b"{}", b"X-Correlation-ID: trace-7\r\n"))
        assert answer(connection)[0] == 422
    event = server.until("request")
    assert (event["correlation_id"], event["status"], event["client"]) == ("trace-7", 422, "127.0.0.1")


def test_a_trusted_proxy_says_who_asks(process: Any) -> None:
    """Behind a proxy each of its clients has a limit of its own; nobody else is believed."""
    trusting, wary = process(rate_limit=1, trusted_proxies=["127.0.0.1"]), process(rate_limit=1)
    for server, wanted in ((trusting, [200, 200, 429]), (wary, [200, 429, 429])):
        with server.connect() as connection:
            found = []
            for client in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"):
                body = json.dumps({"features": EXAMPLE_FEATURES}).encode()
                connection.sendall(post(body, b"X-Forwarded-For: " + client + b"\r\n"))
                found.append(answer(connection)[0])
        assert found == wanted
