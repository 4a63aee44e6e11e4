"""Test messages to the receivers of alerts, with the reason where one is not delivered.

Apprise reports a failure only in its own log, whose texts contain URLs with tokens. They are read here and never shown:
a reason is one of this module's sentences.
"""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from threading import Thread, get_ident
from typing import Final, NamedTuple

from volspike.market import format_time
from volspike.monitoring.alerts import AppriseReceiver, Receiver

DEADLINE_S: Final = 20.0
"""How long a receiver may take; its connection and its answer have shorter limits of their own."""

TITLE: Final = "TEST: volspike alert-test"

_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
_REASONS: Final = {
    "ProxyError|Cannot connect to proxy": "the proxy of the environment does not connect to it",
    "Read timed out": "it accepted the connection and did not answer in time",
    "timed out": "no connection in time",
    "Connection refused": "the connection was refused: nothing listens at its host and port",
    "Failed to resolve|Name or service not known|name resolution|getaddrinfo|nodename nor servname": (
        "its host name cannot be resolved"
    ),
    "CERTIFICATE_VERIFY_FAILED|certificate verify failed": "its TLS certificate is not trusted",
    "SSLError|SSLEOFError|WRONG_VERSION_NUMBER": "no TLS connection; it may not use TLS at this port",
    "No route to host|Network is unreachable": "its network is unreachable",
    "Connection aborted|RemoteDisconnected|reset by peer|Connection unexpectedly closed": (
        "it closed the connection without an answer"
    ),
    r"\(53[045], |SMTPAuthenticationError": "it refused the user name or the password",
}
"""Pattern of a text that Apprise logs → reason; the first that matches applies."""

_UNKNOWN: Final = "the service did not accept the message; check its tokens and the name of the channel"
_CONTENT: Final = ("Response Details", "JSON Payload", "Payload")
"""Beginnings of texts with content of the message or the answer, which say nothing about the cause."""


class DeliveryResult(NamedTuple):
    """The address of a receiver without secrets, and why it did not get the message; empty if it did."""

    receiver: str
    failure: str


def send_test_messages(receivers: Sequence[Receiver], deadline_s: float = DEADLINE_S) -> Iterator[DeliveryResult]:
    """Sends one message that is marked as a test to each receiver at once; the results, in the given order.

    A receiver that has no result after ``deadline_s`` has failed.
    """
    body = f"TEST message of volspike at {format_time(time.time_ns())}: alerts of spikes arrive here. No alert is open."
    unusable = [receiver.prepare() if isinstance(receiver, AppriseReceiver) else "" for receiver in receivers]
    with _apprise_log() as texts:
        attempts = [
            _Attempt(receiver, body, texts) for receiver, reason in zip(receivers, unusable, strict=True) if not reason
        ]
        waiting = iter(attempts)
        end = time.monotonic() + deadline_s
        for receiver, reason in zip(receivers, unusable, strict=True):
            failure = reason or next(waiting).wait(max(0.0, end - time.monotonic()), deadline_s)
            yield DeliveryResult(receiver.address, failure)


class _Attempt:
    """One delivery in a daemon thread."""

    def __init__(self, receiver: Receiver, body: str, texts: dict[int, list[str]]) -> None:
        self._receiver, self._body, self._texts = receiver, body, texts
        self._failure = ""
        self._thread = Thread(target=self._send, name="volspike-alert-test", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float, deadline_s: float) -> str:
        """The failure after at most ``timeout_s``; empty if there is none."""
        self._thread.join(timeout_s)
        return f"no result within {deadline_s:g} s" if self._thread.is_alive() else self._failure

    def _send(self) -> None:
        try:
            is_sent = self._receiver.send(TITLE, self._body)
        except BaseException as error:  # noqa: BLE001  other people's plugins may raise anything; texts may hold secrets
            self._failure = f"its plugin failed with {type(error).__name__}"
            return
        if not is_sent:
            self._failure = explain(self._texts[get_ident()])


def explain(texts: Sequence[str]) -> str:
    """The reason for a failure, from the texts that Apprise logged; none of their content but an HTTP status is in it.

    >>> explain(["Failed to send JSON POST notification: Not Found., error=404."])
    'it answered with HTTP status 404 (Not Found)'
    """
    causes = [text for text in texts if not text.startswith(_CONTENT)]
    for text in causes:
        if (found := _STATUS.search(text)) is not None:
            status = int(found[1])
            phrase = f" ({HTTPStatus(status).phrase})" if status in set(HTTPStatus) else ""
            return f"it answered with HTTP status {status}{phrase}"
    for pattern, reason in _REASONS.items():
        if any(re.search(pattern, text) for text in causes):
            return reason
    return _UNKNOWN


@contextmanager
def _apprise_log() -> Iterator[dict[int, list[str]]]:
    """The texts that Apprise logs in the block, by thread; nothing of them reaches another log."""
    logger = logging.getLogger("apprise")
    before = logger.level, logger.propagate, logger.handlers[:]
    handler = _Texts()
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.texts
    finally:
        level, logger.propagate, logger.handlers[:] = before
        logger.setLevel(level)


class _Texts(logging.Handler):
    """Keeps the texts of each thread."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[int, list[str]] = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a text."""
        self.texts[get_ident()].append(record.getMessage())
