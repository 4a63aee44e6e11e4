"""The receiver against a server on this machine."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from volspike_hook import HookReceiver


@pytest.fixture
def server():
    """A server that keeps what it receives and answers with ``status``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            self.server.received.append((self.path, self.headers["authorization"], json.loads(body)))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.status = [], 200
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_message_is_posted_with_the_token(server):
    """Path, token and text arrive; a status of 300 or more is a failure."""
    receiver = HookReceiver(f"hook://secret@127.0.0.1:{server.server_port}/alerts", 2.0)
    assert receiver.send("spike", "BTC-USD")
    assert server.received == [("/alerts", "Bearer secret", {"title": "spike", "body": "BTC-USD"})]
    server.status = 503
    assert not receiver.send("spike", "BTC-USD")


def test_a_url_without_a_host_is_refused():
    """The message does not repeat the URL, which may hold a token."""
    with pytest.raises(ValueError, match="a hook needs a host"):
        HookReceiver("hook:///secret", 2.0)
