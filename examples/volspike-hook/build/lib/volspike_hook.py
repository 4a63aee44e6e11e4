"""Alerts as JSON by HTTP: ``hook://TOKEN@HOST:PORT/PATH`` posts ``{"title", "body"}`` with the token as bearer."""

import json
from http.client import HTTPConnection
from urllib.parse import urlsplit


class HookReceiver:
    """One receiver. volspike calls ``send`` from one thread, and again after a failure."""

    def __init__(self, url, timeout_s):
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError("a hook needs a host: hook://TOKEN@HOST:PORT/PATH")
        self.host, self.port, self.path = parts.hostname, parts.port or 80, parts.path or "/"
        self.token = parts.username or ""
        self.timeout_s = timeout_s

    def send(self, title, body):
        """Whether the server accepted the message; a refused connection raises, which counts as a failure."""
        connection = HTTPConnection(self.host, self.port, timeout=self.timeout_s)
        try:
            headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
            connection.request("POST", self.path, json.dumps({"title": title, "body": body}), headers)
            return connection.getresponse().status < 300
        finally:
            connection.close()
